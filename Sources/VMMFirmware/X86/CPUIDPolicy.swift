/// What a vCPU answers to CPUID: what KVM supports, with the machine's own topology, identity and
/// limits (`reference/cloud-hypervisor.md` 4.4; fields from Intel SDM 2A CPUID and AMD APM 3
/// appendix E). Pure: the host's own answers come in through a closure.
package struct CPUIDPolicy: Sendable {
    /// How vCPUs share cores, dies and packages.
    package let topology: CPUTopology
    /// The most physical address bits that the guest may see.
    package let maximumPhysicalAddressBits: UInt32
    /// The TSC's frequency in kHz when it is invariant, else nil.
    package let tscKHz: UInt32?
    /// The guest may run guests of its own.
    package var allowsNesting = true
    /// The guest may use AMX; the OS layer must have asked the host for the permission.
    package var allowsAMX = false
    /// The host's answer for a leaf and subleaf, from the CPUID instruction.
    private let host: @Sendable (UInt32, UInt32) -> CPUIDEntry.Answer

    /// The reference's limit for a machine that was given none: 64 TiB.
    package static let defaultPhysicalAddressBits: UInt32 = 46

    /// A policy for all vCPUs of a machine.
    package init(
        topology: CPUTopology, maximumPhysicalAddressBits: UInt32 = defaultPhysicalAddressBits,
        tscKHz: UInt32?, host: @escaping @Sendable (UInt32, UInt32) -> CPUIDEntry.Answer
    ) {
        self.topology = topology
        self.maximumPhysicalAddressBits = maximumPhysicalAddressBits
        self.tscKHz = tscKHz
        self.host = host
    }

    /// The entries for the vCPU with this x2APIC id, from KVM_GET_SUPPORTED_CPUID's. Leaves that
    /// the policy does not know stay as they are and keep their order; leaves that it makes come
    /// last.
    package func entries(supported: [CPUIDEntry], apicID: UInt32) -> [CPUIDEntry] {
        let limits = LeafLimits(supported)
        let kept = supported.filter { !isReplaced($0.leaf) }
        let edited = kept.map { entry in
            var entry = entry
            editFeatures(&entry)
            editTopology(&entry, apicID: apicID, limits: limits)
            editHypervisor(&entry)
            return entry
        }
        return edited + topologyLeaves(apicID: apicID, limits: limits) + brandString(limits)
            + timing
    }

    /// The physical address bits that the guest sees, given KVM's or the host's.
    package func physicalAddressBits(host bits: UInt32) -> UInt32 {
        min(bits, maximumPhysicalAddressBits)
    }

    /// What the supported list says about the processor as a whole.
    struct LeafLimits {
        /// The highest basic leaf.
        let basic: UInt32
        /// The highest extended leaf, 0 when there is none.
        let extended: UInt32
        /// AMD, or Hygon, whose processors are AMD's: they have the topology leaves of AMD.
        let isAMD: Bool

        init(_ entries: [CPUIDEntry]) {
            let first = entries.first { $0.leaf == 0 }
            basic = first?.eax ?? 0
            extended = entries.first { $0.leaf == 0x8000_0000 }?.eax ?? 0
            let amd: UInt32 = 0x6874_7541  // "Auth", of AuthenticAMD
            let hygon: UInt32 = 0x6f67_7948  // "Hygo", of HygonGenuine
            isAMD = first?.ebx == amd || first?.ebx == hygon
        }
    }

    /// Leaves that are made anew instead of edited.
    private func isReplaced(_ leaf: UInt32) -> Bool {
        switch leaf {
        case 0xb, 0x1f, 0x8000_0002...0x8000_0004, 0x4000_0010: true
        default: false
        }
    }

    private func brandString(_ limits: LeafLimits) -> [CPUIDEntry] {
        (0x8000_0002...0x8000_0004).filter { $0 <= limits.extended }.map { leaf in
            CPUIDEntry(leaf: leaf, host(leaf, 0))
        }
    }

    /// The frequencies leaf that hypervisors share: TSC and local APIC bus in kHz.
    private var timing: [CPUIDEntry] {
        guard let tscKHz else { return [] }
        let busKHz: UInt32 = 1_000_000
        return [CPUIDEntry(leaf: 0x4000_0010, .init(eax: tscKHz, ebx: busKHz))]
    }

    private func editHypervisor(_ entry: inout CPUIDEntry) {
        switch entry.leaf {
        case 0x4000_0000 where tscKHz != nil:
            entry.eax = 0x4000_0010
        case 0x4000_0001:
            entry.eax |= 1 << 15  // KVM_FEATURE_MSI_EXT_DEST_ID: 15-bit APIC ids in MSIs
        default: break
        }
    }

    private func editFeatures(_ entry: inout CPUIDEntry) {
        switch (entry.leaf, entry.subleaf) {
        case (1, _):
            entry.ecx |= 1 << 31 | 1 << 24  // a hypervisor is present; TSC deadline timer
            entry.edx |= 1 << 12  // MTRR
            if !allowsNesting { entry.ecx &= ~(1 << 5) }  // VMX
        case (7, 0) where !allowsAMX:
            entry.edx &= ~(1 << 22 | 1 << 24 | 1 << 25)  // AMX-BF16, AMX-TILE, AMX-INT8
        case (7, 1) where !allowsAMX:
            entry.eax &= ~(1 << 21)  // AMX-FP16
            entry.edx &= ~(1 << 8)  // AMX-COMPLEX
        case (0x1d, _) where !allowsAMX, (0x1e, _) where !allowsAMX,
            (0x8000_000a, _) where !allowsNesting:
            entry.clear()
        case (0x8000_0001, _) where !allowsNesting:
            entry.ecx &= ~(1 << 2)  // SVM
        case (0x8000_0005, _), (0x8000_0006, _):
            if entry.isZero { entry.set(host(entry.leaf, 0)) }
        case (0x8000_0008, _):
            editAddressBits(&entry)
        default: break
        }
    }

    /// Bits 0 to 7 are the physical address bits, bits 16 to 23 those that the guest's own page
    /// tables can reach, zero meaning the same.
    private func editAddressBits(_ entry: inout CPUIDEntry) {
        let physical = physicalAddressBits(host: entry.eax & 0xff)
        let reachable = entry.eax >> 16 & 0xff
        let guest = reachable == 0 ? physical : min(reachable, physical)
        entry.eax = entry.eax & 0xff00_ff00 | physical | guest << 16
    }
}

extension CPUIDEntry {
    fileprivate var isZero: Bool { eax | ebx | ecx | edx == 0 }

    fileprivate mutating func clear() {
        set(Answer())
    }

    fileprivate mutating func set(_ answer: Answer) {
        eax = answer.eax
        ebx = answer.ebx
        ecx = answer.ecx
        edx = answer.edx
    }
}
