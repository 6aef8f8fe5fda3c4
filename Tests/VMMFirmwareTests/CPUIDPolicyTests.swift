import Testing

@testable import VMMFirmware

@Suite("CPUIDPolicy")
struct CPUIDPolicyTests {
    private func policy(
        _ topology: CPUTopology? = CPUTopology(vcpuCount: 4), bits: UInt32 = 46,
        tscKHz: UInt32? = 2_100_000
    ) throws -> CPUIDPolicy {
        CPUIDPolicy(
            topology: try #require(topology), maximumPhysicalAddressBits: bits, tscKHz: tscKHz,
            host: HostCPUID.raw)
    }

    private func entry(
        _ entries: [CPUIDEntry], _ leaf: UInt32, _ subleaf: UInt32 = 0
    ) throws -> CPUIDEntry {
        try #require(entries.first { $0.leaf == leaf && $0.subleaf == subleaf })
    }

    @Test("leaf 1 has the vCPU's id, the package's ids and the machine's features")
    func leaf1() throws {
        let leaf = try entry(
            policy().entries(supported: HostCPUID.intel, apicID: 3), 1)
        #expect(leaf.ebx == 0x0304_0800)
        #expect(leaf.ecx & (1 << 31 | 1 << 24) == 1 << 31 | 1 << 24)
        #expect(leaf.edx & (1 << 12 | 1 << 28) == 1 << 12 | 1 << 28)
        #expect(leaf.ecx & 1 << 5 != 0)  // VMX stays
    }

    @Test("a single vCPU has no hyper-threading flag and one id")
    func singleCPU() throws {
        let leaf = try entry(
            policy(CPUTopology(vcpuCount: 1)).entries(supported: HostCPUID.intel, apicID: 0), 1)
        #expect(leaf.edx & 1 << 28 == 0)
        #expect(leaf.ebx >> 16 & 0xff == 1)
    }

    @Test("ids and counts above 8 bits are cut in leaf 1 only")
    func manyCPUs() throws {
        let entries = try policy(CPUTopology(vcpuCount: 1000)).entries(
            supported: HostCPUID.intel, apicID: 999)
        #expect(try entry(entries, 1).ebx >> 16 == 0xe7ff)
        #expect(try entry(entries, 0xb, 0).edx == 999)
    }

    @Test("without nesting VMX, SVM and SVM's own leaf are gone")
    func nestingOff() throws {
        var policy = try policy()
        policy.allowsNesting = false
        let intel = policy.entries(supported: HostCPUID.intel, apicID: 0)
        let amd = policy.entries(supported: HostCPUID.amd, apicID: 0)
        #expect(try entry(intel, 1).ecx & 1 << 5 == 0)
        #expect(try entry(amd, 0x8000_0001).ecx & 1 << 2 == 0)
        #expect(try entry(amd, 0x8000_000a).edx == 0)
    }

    @Test("with nesting, as by default, SVM stays")
    func nestingOn() throws {
        let amd = try policy().entries(supported: HostCPUID.amd, apicID: 0)
        #expect(try entry(amd, 0x8000_0001).ecx & 1 << 2 != 0)
        #expect(try entry(amd, 0x8000_000a).edx == 0x1119_b4ff)
    }

    @Test("AMX is hidden unless it is asked for")
    func amx() throws {
        var policy = try policy()
        let without = policy.entries(supported: HostCPUID.intel, apicID: 0)
        policy.allowsAMX = true
        let with = policy.entries(supported: HostCPUID.intel, apicID: 0)

        #expect(try entry(without, 7).edx == 0xffc1_4410 & ~0x0340_0000)
        #expect(try entry(without, 7, 1).eax == 0x0000_1c30)
        #expect(try entry(without, 7, 1).edx == 0x4000)
        #expect(try entry(without, 0x1d, 1).eax == 0)
        #expect(try entry(without, 0x1e).ebx == 0)
        #expect(try entry(with, 7).edx == 0xffc1_4410)
        #expect(try entry(with, 0x1d, 1).eax == 0x0400_2000)
    }

    @Test("no cache is shared by more than a guest core or die")
    func intelCaches() throws {
        let flat = try policy().entries(supported: HostCPUID.intel, apicID: 0)
        let threads = try policy(
            CPUTopology(threadsPerCore: 2, coresPerDie: 64, diesPerPackage: 2)
        ).entries(supported: HostCPUID.intel, apicID: 0)

        // Bits 14 to 25: ids that share the cache; bits 26 to 31: core ids; both less one.
        #expect(try (0..<4).map { try entry(flat, 4, $0).eax >> 14 & 0xfff } == [0, 0, 0, 3])
        #expect(try entry(flat, 4, 0).eax >> 26 == 3)
        #expect(try (0..<4).map { try entry(threads, 4, $0).eax >> 14 & 0xfff } == [1, 1, 1, 127])
        #expect(try entry(threads, 4, 3).eax >> 26 == 63)
        #expect(try entry(flat, 4, 0).eax & 0x3fff == 0x121)
        #expect(try entry(flat, 4, 4).eax == 0)
    }

    @Test("a host's narrower cache sharing is kept")
    func narrowCache() throws {
        let amd = try policy(CPUTopology(vcpuCount: 64)).entries(
            supported: HostCPUID.amd, apicID: 0)
        #expect(try entry(amd, 0x8000_001d, 3).eax >> 14 & 0xfff == 15)
        #expect(try entry(amd, 0x8000_001d, 0).eax >> 14 & 0xfff == 0)
        #expect(try entry(amd, 0x8000_001d, 0).eax >> 26 == 0)
    }

    @Test("leaf 0xb has the thread and the package level, then the end")
    func topologyLeaf() throws {
        let topology = CPUTopology(threadsPerCore: 2, coresPerDie: 3, diesPerPackage: 2)
        let entries = try policy(topology).entries(supported: HostCPUID.intel, apicID: 13)
        let leaves = entries.filter { $0.leaf == 0xb }
        #expect(leaves.map(\.indexed) == [true, true, true])
        #expect(leaves.map(\.eax) == [1, 4, 0])
        #expect(leaves.map(\.ebx) == [2, 12, 0])
        #expect(leaves.map(\.ecx) == [0x100, 0x201, 2])
        #expect(leaves.map(\.edx) == [13, 13, 13])
    }

    @Test("leaf 0x1f names dies too, where the processor has the leaf")
    func dieLeaf() throws {
        let topology = CPUTopology(threadsPerCore: 2, coresPerDie: 3, diesPerPackage: 2)
        let intel = try policy(topology).entries(supported: HostCPUID.intel, apicID: 13)
        let amd = try policy(topology).entries(supported: HostCPUID.amd, apicID: 13)
        let leaves = intel.filter { $0.leaf == 0x1f }
        #expect(leaves.map(\.eax) == [1, 3, 4, 0])
        #expect(leaves.map(\.ebx) == [2, 6, 12, 0])
        #expect(leaves.map(\.ecx) == [0x100, 0x201, 0x502, 3])
        #expect(!amd.contains { $0.leaf == 0x1f })
        #expect(amd.contains { $0.leaf == 0xb })
    }

    @Test("AMD's core count, ids and flags follow the topology")
    func amdTopology() throws {
        let topology = CPUTopology(threadsPerCore: 2, coresPerDie: 3, diesPerPackage: 2)
        let amd = try policy(topology).entries(supported: HostCPUID.amd, apicID: 13)
        #expect(try entry(amd, 0x8000_0001).ecx & (1 << 1 | 1 << 22) == 1 << 1 | 1 << 22)
        #expect(try entry(amd, 0x8000_0008).ecx == 0x400b)  // 4 id bits, 12 threads
        let identity = try entry(amd, 0x8000_001e)
        #expect(identity.eax == 13)
        #expect(identity.ebx == 0x0106)  // 2 threads, core id 6
        #expect(identity.ecx == 0x0101)  // 2 nodes, this is node 1
    }

    @Test("Intel's extended leaves are not given AMD's meaning")
    func intelExtended() throws {
        let intel = try policy().entries(supported: HostCPUID.intel, apicID: 3)
        #expect(try entry(intel, 0x8000_0001).ecx == 0x121)
        #expect(try entry(intel, 0x8000_0008).ecx == 0)
    }

    @Test(
        "physical address bits are the smaller of KVM's and the machine's",
        arguments: [
            (46, 0x002e_392e), (52, 0x0030_3934), (40, 0x0028_3928),
        ] as [(UInt32, UInt32)])
    func addressBits(bits: UInt32, eax: UInt32) throws {
        let entries = try policy(bits: bits).entries(supported: HostCPUID.intel, apicID: 0)
        #expect(try entry(entries, 0x8000_0008).eax == eax)
    }

    @Test("where KVM names no reachable bits, they are the physical ones")
    func reachableBits() throws {
        let amd = try policy().entries(supported: HostCPUID.amd, apicID: 0)
        #expect(try entry(amd, 0x8000_0008).eax == 0x002e_302e)
        #expect(try policy().physicalAddressBits(host: 39) == 39)
        #expect(CPUIDPolicy.defaultPhysicalAddressBits == 46)
    }

    @Test("the brand string and missing cache sizes are the host's")
    func hostLeaves() throws {
        let amd = try policy().entries(supported: HostCPUID.amd, apicID: 0)
        let intel = try policy().entries(supported: HostCPUID.intel, apicID: 0)
        #expect(try (2...4).map { try entry(amd, 0x8000_0000 + $0).eax } == [2, 3, 4])
        #expect(amd.filter { $0.leaf == 0x8000_0002 }.count == 1)
        #expect(try entry(amd, 0x8000_0005).ecx == 5)
        #expect(try entry(amd, 0x8000_0006).ecx == 6)
        #expect(try entry(intel, 0x8000_0006).ecx == 0x0800_8040)
    }

    @Test("the hypervisor leaves announce long MSI ids and the TSC's frequency")
    func hypervisor() throws {
        let entries = try policy().entries(supported: HostCPUID.amd, apicID: 0)
        #expect(try entry(entries, 0x4000_0000).eax == 0x4000_0010)
        #expect(try entry(entries, 0x4000_0001).eax == 0x0100_fefb)
        #expect(try entry(entries, 0x4000_0010).eax == 2_100_000)
        #expect(try entry(entries, 0x4000_0010).ebx == 1_000_000)
    }

    @Test("a TSC that is not invariant has no frequency leaf")
    func noFrequency() throws {
        let entries = try policy(tscKHz: nil).entries(supported: HostCPUID.amd, apicID: 0)
        #expect(try entry(entries, 0x4000_0000).eax == 0x4000_0001)
        #expect(!entries.contains { $0.leaf == 0x4000_0010 })
    }

    @Test("leaves that the policy does not know are kept")
    func unknownLeaves() throws {
        let entries = try policy().entries(supported: HostCPUID.intel, apicID: 0)
        #expect(try entry(entries, 2).eax == 0x00fe_ff01)
        #expect(Set(entries.map { "\($0.leaf).\($0.subleaf)" }).count == entries.count)
    }

    @Test("an empty list of supported leaves gives only what the policy makes itself")
    func nothingSupported() throws {
        let entries = try policy().entries(supported: [], apicID: 0)
        #expect(entries.map(\.leaf) == [0x4000_0010])
    }
}
