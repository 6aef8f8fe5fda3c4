import VMMBase
import VMMFirmware
import VMMHost

/// The kernel and initramfs, opened and checked; they stay open, so that a reboot loads the same.
package struct Payload: Sendable {
    let kernel: FileDescriptor
    let image: KernelImage
    let initramfs: FileDescriptor?
    let initramfsByteCount: UInt64

    /// Opens both files; all mistakes at once.
    package init(_ outline: MachineOutline) throws(ConfigurationError) {
        var problems: [ConfigurationProblem] = []
        let kernel = Self.open(outline.kernel, "--kernel", &problems)
        let initramfs = outline.initramfs.flatMap { Self.open($0, "--initramfs", &problems) }
        let image = kernel.flatMap { Self.parse($0, outline.kernel, &problems) }
        guard problems.isEmpty, let kernel, let image else { throw ConfigurationError(problems) }
        self.kernel = kernel.file
        self.image = image
        self.initramfs = initramfs?.file
        initramfsByteCount = initramfs?.byteCount ?? 0
    }

    private static func open(
        _ path: String, _ option: String, _ problems: inout [ConfigurationProblem]
    ) -> FileSource? {
        func refuse(_ reason: String) -> FileSource? {
            problems.append(ConfigurationProblem(option: option, value: path, reason: reason))
            return nil
        }
        do throws(HostError) {
            // Non-blocking, so that a FIFO does not hold us up before it is refused.
            let file = try FileDescriptor.open(path, [.readOnly, .nonBlocking])
            let metadata = try file.metadata()
            guard metadata.kind == .regular else { return refuse("is not a file") }
            guard metadata.byteCount > 0 else { return refuse("is empty") }
            return FileSource(file: file, byteCount: metadata.byteCount)
        } catch {
            return refuse("cannot be read: \(error.reason)")
        }
    }

    private static func parse(
        _ source: FileSource, _ path: String, _ problems: inout [ConfigurationProblem]
    ) -> KernelImage? {
        do throws(KernelImageError) {
            return try KernelImage.parse(source)
        } catch {
            problems.append(
                ConfigurationProblem(option: "--kernel", value: path, reason: "\(error)"))
            return nil
        }
    }
}

/// A file as the firmware module reads it.
struct FileSource: ImageSource {
    let file: FileDescriptor
    let byteCount: UInt64

    func read(at offset: UInt64, count: Int) throws -> [UInt8] {
        try file.read(at: offset, count: count)
    }
}
