@testable import VMMFirmware

/// What KVM_GET_SUPPORTED_CPUID says on two kinds of host, cut down to the leaves that matter.
enum HostCPUID {
    private static func entry(_ leaf: UInt32, _ registers: [UInt32]) -> CPUIDEntry {
        CPUIDEntry(leaf: leaf, answer(registers))
    }

    private static func entry(
        _ leaf: UInt32, _ subleaf: UInt32, _ registers: [UInt32]
    ) -> CPUIDEntry {
        CPUIDEntry(leaf: leaf, subleaf: subleaf, answer(registers))
    }

    private static func answer(_ registers: [UInt32]) -> CPUIDEntry.Answer {
        .init(eax: registers[0], ebx: registers[1], ecx: registers[2], edx: registers[3])
    }

    private static let kvm: [CPUIDEntry] = [
        entry(0x4000_0000, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
        entry(0x4000_0001, [0x0100_7efb, 0, 0, 0]),
    ]

    /// A Sapphire Rapids server: two threads on each core, AMX, 52 address bits.
    static let intel: [CPUIDEntry] =
        [
            entry(0, [0x20, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
            entry(1, [0x000806f8, 0x2a40_0800, 0x7efe_fbbf, 0xbfeb_ebff]),
            entry(2, [0x00fe_ff01, 0xf0, 0, 0]),
            entry(4, 0, [0xfc00_4121, 0x02c0_003f, 0x3f, 0]),  // L1d, 48 KiB, 2 threads
            entry(4, 1, [0xfc00_4122, 0x01c0_003f, 0x3f, 0]),
            entry(4, 2, [0xfc00_4143, 0x03c0_003f, 0x7ff, 0]),
            entry(4, 3, [0xfc1f_c163, 0x0380_003f, 0x1bfff, 4]),  // L3, 128 threads
            entry(4, 4, [0, 0, 0, 0]),
            entry(7, 0, [2, 0xf1bf_07ab, 0x1b41_5f6e, 0xffc1_4410]),
            entry(7, 1, [0x0020_1c30, 0, 0, 0x0000_4100]),
            entry(0xb, 0, [0, 0, 0, 0x55]),
            entry(0x1d, 0, [1, 0, 0, 0]),
            entry(0x1d, 1, [0x0400_2000, 0x0008_0040, 0x10, 0]),
            entry(0x1e, [0, 0x4010, 0, 0]),
            entry(0x1f, 0, [0, 0, 0, 0x55]),
            entry(0x8000_0000, [0x8000_0008, 0, 0, 0]),
            entry(0x8000_0001, [0, 0, 0x121, 0x2c10_0800]),
            entry(0x8000_0002, [0, 0, 0, 0]),
            entry(0x8000_0006, [0, 0, 0x0800_8040, 0]),
            entry(0x8000_0008, [0x0030_3934, 0x200, 0, 0]),
        ] + kvm

    /// A Milan server: 48 address bits, SVM, the topology leaves of AMD.
    static let amd: [CPUIDEntry] =
        [
            entry(0, [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
            entry(1, [0x00a0_0f11, 0x0040_0800, 0xfef8_3203, 0x178b_fbff]),
            entry(7, 0, [0, 0x219c_97a9, 0x0040_069c, 0x10]),
            entry(0xb, 0, [0, 0, 0, 0]),
            entry(0x8000_0000, [0x8000_0023, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
            entry(0x8000_0001, [0x00a0_0f11, 0x4000_0000, 0x0040_0175, 0x2fd3_fbff]),
            entry(0x8000_0002, [1, 1, 1, 1]),
            entry(0x8000_0005, [0, 0, 0, 0]),
            entry(0x8000_0006, [0, 0, 0, 0]),
            entry(0x8000_0008, [0x3030, 0x111e_f657, 0x503f, 0x1_0000]),
            entry(0x8000_000a, [1, 8, 0, 0x1119_b4ff]),
            entry(0x8000_001d, 0, [0x4121, 0x01c0_003f, 0x3f, 0]),  // L1d, 2 threads
            entry(0x8000_001d, 3, [0x3c163, 0x03c0_003f, 0x7fff, 1]),  // L3, 16 threads
            entry(0x8000_001d, 4, [0, 0, 0, 0]),
            entry(0x8000_001e, [0, 0, 0, 0]),
        ] + kvm

    /// The host's own answers: the leaf's low byte in each register, to be told apart.
    static func raw(leaf: UInt32, subleaf: UInt32) -> CPUIDEntry.Answer {
        .init(eax: leaf & 0xff, ebx: leaf & 0xff, ecx: leaf & 0xff, edx: leaf & 0xff)
    }
}
