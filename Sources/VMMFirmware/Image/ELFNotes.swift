/// The notes of one PT_NOTE segment (gABI, "Note Section"). Stops without an error at the first
/// note that does not fit, as other loaders do.
struct ELFNotes {
    private let fields: ImageFields
    private let alignment: Int

    /// `alignment` is 4 or 8 bytes; it pads names and descriptors.
    init(_ fields: ImageFields, alignment: Int) {
        self.fields = fields
        self.alignment = alignment
    }

    /// The descriptor of the first note with this owner and type, nil when there is none.
    func first(name: String, type: UInt32) -> [UInt8]? {
        let wanted = Array(name.utf8) + [0]
        var offset = 0
        // Sizes are 32-bit and offsets stay below the segment's limit, so no sum here overflows.
        while offset + 12 <= fields.bytes.count {
            let nameBytes: UInt32 = fields.value(at: offset)
            let descriptorBytes: UInt32 = fields.value(at: offset + 4)
            let noteType: UInt32 = fields.value(at: offset + 8)
            let nameStart = offset + 12
            let descriptorStart = aligned(nameStart + Int(nameBytes))
            let descriptorEnd = descriptorStart + Int(descriptorBytes)
            guard descriptorEnd <= fields.bytes.count else { return nil }
            let owner = fields.slice(nameStart..<nameStart + Int(nameBytes))
            if noteType == type, owner == wanted {
                return fields.slice(descriptorStart..<descriptorEnd)
            }
            offset = aligned(descriptorEnd)
        }
        return nil
    }

    private func aligned(_ offset: Int) -> Int {
        (offset + alignment - 1) / alignment * alignment
    }
}
