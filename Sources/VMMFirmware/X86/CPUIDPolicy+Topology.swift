/// Which vCPUs share what, and who this one is.
extension CPUIDPolicy {
    /// Edits the leaves that mix topology with other things.
    func editTopology(_ entry: inout CPUIDEntry, apicID: UInt32, limits: LeafLimits) {
        switch entry.leaf {
        case 1: editIdentity(&entry, apicID: apicID)
        case 4: editCache(&entry, countsCores: true)
        case 0x8000_001d: editCache(&entry, countsCores: false)
        case 0x8000_0001 where limits.isAMD: editAMDFeatures(&entry, limits: limits)
        case 0x8000_0008 where limits.isAMD: editAMDCoreCount(&entry)
        case 0x8000_001e where limits.isAMD: editAMDIdentity(&entry, apicID: apicID)
        default: break
        }
    }

    /// EBX has the initial APIC id and how many ids a package may have, each in 8 bits.
    private func editIdentity(_ entry: inout CPUIDEntry, apicID: UInt32) {
        let ids = min(UInt32(1) << topology.packageShift, 0xff)
        entry.ebx = entry.ebx & 0xffff | (apicID & 0xff) << 24 | ids << 16
        let htt: UInt32 = 1 << 28
        entry.edx = topology.threadsPerPackage > 1 ? entry.edx | htt : entry.edx & ~htt
    }

    /// EAX bits 14 to 25 say how many ids share a cache, less one. The first two levels belong to
    /// a core and the others to a die at most; the host's own sharing is never widened. In leaf 4,
    /// bits 26 to 31 say how many core ids a package has, less one.
    private func editCache(_ entry: inout CPUIDEntry, countsCores: Bool) {
        let type = entry.eax & 0x1f
        guard type != 0 else { return }
        let level = entry.eax >> 5 & 7
        let ids = UInt32(1) << (level < 3 ? topology.coreShift : topology.dieShift)
        let sharing = min(entry.eax >> 14 & 0xfff, ids - 1)
        entry.eax = entry.eax & ~(0xfff << 14) | sharing << 14
        guard countsCores else { return }
        let cores = min(UInt32(1) << (topology.packageShift - topology.coreShift), 64)
        entry.eax = entry.eax & ~(0x3f << 26) | (cores - 1) << 26
    }

    /// ECX says that a package has several cores (CmpLegacy) and that leaf 0x8000001e tells more.
    private func editAMDFeatures(_ entry: inout CPUIDEntry, limits: LeafLimits) {
        guard topology.threadsPerDie > 1 else { return }
        entry.ecx |= 1 << 1
        if limits.extended >= 0x8000_001e { entry.ecx |= 1 << 22 }
    }

    /// ECX bits 0 to 7: threads in the package, less one; bits 12 to 15: the id bits they take.
    private func editAMDCoreCount(_ entry: inout CPUIDEntry) {
        let count = min(topology.threadsPerPackage - 1, 0xff)
        entry.ecx = entry.ecx & 0xffff_0f00 | topology.packageShift << 12 | count
    }

    /// The extended APIC id, the core's and the node's number; a die is a node.
    private func editAMDIdentity(_ entry: inout CPUIDEntry, apicID: UInt32) {
        let coreMask = (UInt32(1) << (topology.packageShift - topology.coreShift)) - 1
        let core = apicID >> topology.coreShift & coreMask
        let die = (apicID & ((1 << topology.packageShift) - 1)) >> topology.dieShift
        entry.eax = apicID
        entry.ebx = (core & 0xff) | min(topology.threadsPerCore - 1, 0xff) << 8
        entry.ecx = (die & 0xff) | min(topology.diesPerPackage - 1, 7) << 8
        entry.edx = 0
    }

    /// Leaf 0xb, and leaf 0x1f which can also name dies, where the processor has them.
    func topologyLeaves(apicID: UInt32, limits: LeafLimits) -> [CPUIDEntry] {
        let threads = Level(type: 1, shift: topology.coreShift, count: topology.threadsPerCore)
        let package = Level(
            type: 2, shift: topology.packageShift, count: topology.threadsPerPackage)
        let cores = Level(type: 2, shift: topology.dieShift, count: topology.threadsPerDie)
        let dies = Level(type: 5, shift: topology.packageShift, count: topology.threadsPerPackage)
        var leaves: [CPUIDEntry] = []
        if limits.basic >= 0xb {
            leaves += entries(leaf: 0xb, levels: [threads, package], apicID: apicID)
        }
        if limits.basic >= 0x1f {
            let levels = topology.diesPerPackage > 1 ? [threads, cores, dies] : [threads, package]
            leaves += entries(leaf: 0x1f, levels: levels, apicID: apicID)
        }
        return leaves
    }

    /// A level of the topology: what the id bits below `shift` tell apart, and how many vCPUs
    /// that is.
    private struct Level {
        let type: UInt32
        let shift: UInt32
        let count: UInt32
    }

    /// One subleaf for each level, then one that ends the list with type 0.
    private func entries(leaf: UInt32, levels: [Level], apicID: UInt32) -> [CPUIDEntry] {
        let end = Level(type: 0, shift: 0, count: 0)
        return (levels + [end]).enumerated().map { index, level in
            let subleaf = UInt32(index)
            return CPUIDEntry(
                leaf: leaf, subleaf: subleaf,
                .init(
                    eax: level.shift, ebx: level.count, ecx: level.type << 8 | subleaf,
                    edx: apicID))
        }
    }
}
