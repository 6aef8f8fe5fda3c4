/// An x86 segment register with its hidden part, in the terms of `struct kvm_segment`
/// (Intel SDM 3A, 3.4.5).
package struct SegmentRegister: Hashable, Sendable {
    /// Linear address of the segment's first byte.
    package let base: UInt64
    /// Offset of the segment's last byte.
    package let limit: UInt32
    /// The visible part: the descriptor's byte offset in the GDT, ring 0.
    package let selector: UInt16
    /// Type bits: 0xb is code (execute, read, accessed) or, for a system segment, a busy TSS.
    package let type: UInt8
    /// The segment is present.
    package let present: Bool
    /// The descriptor's privilege level, 0 to 3.
    package let dpl: UInt8
    /// Default operation size: true for 32 bits.
    package let db: Bool
    /// True for code and data, false for a system segment such as a TSS.
    package let s: Bool
    /// 64-bit code.
    package let l: Bool
    /// The limit counts pages of 4 KiB in the descriptor.
    package let g: Bool

    /// A segment at base 0 from the attribute word of its descriptor: bits 40 to 55, of which
    /// bits 48 to 51 belong to the limit and must be zero here.
    init(selector: UInt16, attributes: UInt16, limit: UInt32) {
        base = 0
        self.limit = limit
        self.selector = selector
        type = UInt8(attributes & 0xf)
        s = attributes & 0x10 != 0
        dpl = UInt8(attributes >> 5 & 3)
        present = attributes & 0x80 != 0
        l = attributes & 0x2000 != 0
        db = attributes & 0x4000 != 0
        g = attributes & 0x8000 != 0
    }

    /// The segment's entry in the GDT.
    package var descriptor: UInt64 {
        let scaledLimit = UInt64(g ? limit >> 12 : limit)
        var attributes = UInt64(type) | UInt64(dpl) << 5
        if s { attributes |= 0x10 }
        if present { attributes |= 0x80 }
        if l { attributes |= 0x2000 }
        if db { attributes |= 0x4000 }
        if g { attributes |= 0x8000 }
        let lowHalf = scaledLimit & 0xffff | (base & 0xff_ffff) << 16
        let highHalf =
            attributes << 40 | (scaledLimit >> 16 & 0xf) << 48 | (base >> 24 & 0xff) << 56
        return lowHalf | highHalf
    }
}
