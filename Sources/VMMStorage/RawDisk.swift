import VMMBase
import VMMHost

/// A raw image file or block device, opened and locked.
package final class RawDisk {
    /// Why an image cannot be used; a sentence without the path, which the caller knows.
    package enum OpenError: Error, CustomStringConvertible {
        case host(HostError)
        case isDirectory
        case notAFile
        case empty
        case inUse

        package var description: String {
            switch self {
            case .host(let error): error.reason
            case .isDirectory: "is a directory; a file or a block device is needed"
            case .notAFile: "is neither a file nor a block device"
            case .empty: "holds less than one sector of 512 bytes"
            case .inUse: "is used by somebody else, who writes it or would be disturbed by writes"
            }
        }
    }

    package static let sectorSize: UInt64 = 512

    package let file: FileDescriptor
    package let isReadOnly: Bool
    package let isBlockDevice: Bool
    /// Whole sectors only; a remainder at the file's end is out of reach.
    package let sectorCount: UInt64
    /// In bytes: 512 for files.
    package let logicalBlockSize: UInt32
    package let physicalBlockSize: UInt32
    private let metadata: FileDescriptor.Metadata

    package init(path: String, isReadOnly: Bool) throws(OpenError) {
        try Self.requireDisk(at: path)
        do throws(HostError) {
            file = try FileDescriptor.open(path, isReadOnly ? .readOnly : .readWrite)
            metadata = try file.metadata()
        } catch {
            throw .host(error)
        }
        guard metadata.kind == .regular || metadata.kind == .blockDevice else { throw .notAFile }
        sectorCount = metadata.byteCount / Self.sectorSize
        guard sectorCount > 0 else { throw .empty }
        self.isReadOnly = isReadOnly
        isBlockDevice = metadata.kind == .blockDevice
        logicalBlockSize = isBlockDevice ? file.logicalSectorSize : 512
        physicalBlockSize = isBlockDevice ? file.physicalSectorSize : 512
        let isLocked: Bool
        do throws(HostError) {
            isLocked = try file.lock(exclusive: !isReadOnly)
        } catch {
            throw .host(error)
        }
        guard isLocked else { throw .inUse }
    }

    /// Looks without waiting: the opening of a FIFO for reading would wait for its writer.
    private static func requireDisk(at path: String) throws(OpenError) {
        let kind: FileDescriptor.Kind
        do throws(HostError) {
            kind = try FileDescriptor.open(path, [.readOnly, .nonBlocking]).metadata().kind
        } catch {
            throw .host(error)
        }
        switch kind {
        case .regular, .blockDevice: return
        case .directory: throw .isDirectory
        case .characterDevice, .other: throw .notAFile
        }
    }

    /// What the disk answers when the user gave it no serial: the image's identity on this host,
    /// as CH derives it (device, represented device and inode numbers, 20 bytes at most).
    package var defaultSerial: String {
        String("\(metadata.device)\(metadata.rawDevice)\(metadata.inode)".prefix(20))
    }

    /// io_uring where the kernel allows it, else blocking calls.
    package func makeEngine(depth: UInt32, allowsRing: Bool) -> any DiskEngine {
        if allowsRing {
            do {
                return try RingEngine(file, depth: depth)
            } catch {
                Log.info("disk: blocking calls instead of io_uring: \(error)")
            }
        }
        return SynchronousEngine(file)
    }
}
