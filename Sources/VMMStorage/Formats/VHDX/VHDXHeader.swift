import VMMHost

/// The header of a VHDX (MS-VHDX 2.2.2). A file has two; the valid one with the higher sequence
/// number counts, and a change is written over the other one.
struct VHDXHeader {
    private static let byteCount = 4096
    private static let offsets: [UInt64] = [64 << 10, 128 << 10]
    /// Nobody comes so far by counting, and from here there is room to count on.
    private static let lastSequence = UInt64.max >> 1

    private var bytes: [UInt8]
    private var slot: Int

    private var sequence: UInt64 { bytes.littleEndian(UInt64.self, at: 8) }
    var logOffset: UInt64 { bytes.littleEndian(UInt64.self, at: 72) }
    var logByteCount: UInt64 { UInt64(bytes.littleEndian(UInt32.self, at: 68)) }
    /// Zero: the log holds nothing that would have to be applied.
    var logID: VHDXIdentifier { VHDXIdentifier(of: bytes, at: 48) }

    init(of file: any ImageFile) throws(ImageError) {
        var newest: VHDXHeader?
        for (slot, offset) in Self.offsets.enumerated() {
            let found = try hosted { () throws(HostError) in
                try file.bytes(at: offset, count: Self.byteCount)
            }
            guard let found, found.holds("head", at: 0), CRC32C.isSealed(found, at: 4) else {
                continue
            }
            let header = VHDXHeader(bytes: found, slot: slot)
            if newest.map({ $0.sequence < header.sequence }) ?? true { newest = header }
        }
        guard let newest, newest.sequence <= Self.lastSequence else {
            throw .corrupt("neither of its headers is valid")
        }
        let version = newest.bytes.littleEndian(UInt16.self, at: 66)
        guard version == 1 else { throw .unsupported("version \(version) of VHDX") }
        let logVersion = newest.bytes.littleEndian(UInt16.self, at: 64)
        guard logVersion == 0 else { throw .unsupported("version \(logVersion) of the VHDX log") }
        self = newest
    }

    private init(bytes: [UInt8], slot: Int) {
        self.bytes = bytes
        self.slot = slot
    }

    /// The first header of a new file.
    init(logOffset: UInt64, logByteCount: UInt32) {
        bytes = [UInt8](repeating: 0, count: Self.byteCount)
        slot = 0
        bytes.store("head".utf8, at: 0)
        bytes.storeLittleEndian(1 as UInt16, at: 66)
        bytes.storeLittleEndian(logByteCount, at: 68)
        bytes.storeLittleEndian(logOffset, at: 72)
        renew()
    }

    /// New identifiers of the file's and the disk's contents: due before the first change.
    mutating func renew() {
        VHDXIdentifier.random().store(in: &bytes, at: 16)
        VHDXIdentifier.random().store(in: &bytes, at: 32)
    }

    mutating func setLogID(_ id: VHDXIdentifier) { id.store(in: &bytes, at: 48) }

    /// Puts the header into the file, in front of all that is written later.
    mutating func write(on file: any ImageFile) throws(ImageError) {
        slot = 1 - slot
        bytes.storeLittleEndian(sequence + 1, at: 8)
        CRC32C.seal(&bytes, at: 4)
        try hosted { () throws(HostError) in
            try file.write(bytes, at: Self.offsets[slot])
            try file.synchronize()
        }
    }
}
