import VMMStorage

/// The input is some operations and the text of a flat VMDK, whose extents are all one file.
enum VMDKTarget: FuzzTarget {
    static let name = "vmdk"

    static let words = [
        "# Disk DescriptorFile\n", "version=1\n", "CID=fffffffe\n", "parentCID=ffffffff\n",
        "createType=\"monolithicFlat\"\n", "createType=\"twoGbMaxExtentFlat\"\n",
        "RW 128 FLAT \"a-flat.vmdk\" 0\n", "RDONLY 128 FLAT \"b\" 64\n", "NOACCESS 1 ZERO\n",
        "RW 4294967296 ZERO\n", "VMFS", "ddb.adapterType = \"ide\"\n",
    ].map { Array($0.utf8) }

    static func seeds() throws -> [[UInt8]] {
        let file = FuzzFile()
        try VMDKImage.create(on: file, byteCount: 64 << 10, isSplit: false) { _ in FuzzFile() }
        let mixed = """
            # Disk DescriptorFile
            version=1
            CID=fffffffe
            parentCID=ffffffff
            createType="twoGbMaxExtentFlat"

            RW 64 FLAT "a" 0
            RDONLY 32 FLAT "b" 32
            RW 16 ZERO
            NOACCESS 16 FLAT "c" 0

            """
        let other = FuzzFile()
        try other.write(Array(mixed.utf8), at: 0)
        return [file, other].flatMap { image in ImageOperations.seeds.map { $0 + text(image) } }
    }

    private static func text(_ file: FuzzFile) -> [UInt8] {
        let count = (try? file.byteCount()) ?? 0
        return (try? file.bytes(at: 0, count: Int(count))) ?? []
    }

    static func run(_ input: FuzzInput) {
        var input = input
        let operations = ImageOperations(&input)
        let file = FuzzFile(input.takeAll(), isReadOnly: operations.isReadOnly)
        operations.run { () throws(ImageError) in
            try VMDKImage(file, isAnyFile: true) { _, isReadOnly in
                FuzzFile(isReadOnly: isReadOnly, byteCount: 64 << 10)
            }
        }
    }
}
