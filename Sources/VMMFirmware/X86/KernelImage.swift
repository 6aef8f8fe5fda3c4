/// A kernel file that the x86-64 boot path can start.
package enum KernelImage: Hashable, Sendable {
    /// An uncompressed kernel (or firmware) with a PVH entry.
    case elf(ELFKernel)
    /// A compressed kernel with the Linux x86 boot protocol's header.
    case bzImage(BzImage)

    /// Reads and checks the headers of `source`: an ELF file by its magic number, else a bzImage.
    package static func parse(
        _ source: some ImageSource
    ) throws(KernelImageError) -> KernelImage {
        let start = try source.fields(
            of: "start of the file", at: 0,
            count: min(source.byteCount, BzImage.headerSearchBytes),
            limit: Int(BzImage.headerSearchBytes))
        if start.value(at: 0) == ELFKernel.magic {
            return .elf(try ELFKernel(source))
        }
        if BzImage.isRecognised(start) {
            return .bzImage(try BzImage(start, source))
        }
        throw .unrecognised
    }
}
