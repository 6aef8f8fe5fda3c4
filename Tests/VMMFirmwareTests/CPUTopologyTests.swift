import Testing

@testable import VMMFirmware

@Suite("CPUTopology")
struct CPUTopologyTests {
    @Test("without a topology every vCPU is a core with its number as id")
    func flat() throws {
        let topology = try #require(CPUTopology(vcpuCount: 6))
        #expect((0..<6).map { topology.apicID(vcpu: $0) } == [0, 1, 2, 3, 4, 5])
        #expect(topology.coreShift == 0)
        #expect(topology.packageShift == 3)
    }

    @Test("one vCPU needs no id bits")
    func single() throws {
        #expect(try #require(CPUTopology(vcpuCount: 1)).packageShift == 0)
    }

    @Test("ids are packed by the widths of threads, cores and dies")
    func packed() throws {
        // Two threads take one bit, three cores two, two dies one.
        let topology = try #require(
            CPUTopology(threadsPerCore: 2, coresPerDie: 3, diesPerPackage: 2))
        #expect(topology.coreShift == 1)
        #expect(topology.dieShift == 3)
        #expect(topology.packageShift == 4)
        #expect(
            (0..<14).map { topology.apicID(vcpu: $0) }
                == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 16, 17])
        #expect(topology.threadsPerDie == 6)
        #expect(topology.threadsPerPackage == 12)
    }

    @Test("counts of zero and packages of more than 15 id bits do not exist")
    func impossible() {
        #expect(CPUTopology(vcpuCount: 0) == nil)
        #expect(CPUTopology(vcpuCount: 32768) != nil)
        #expect(CPUTopology(vcpuCount: 32769) == nil)
        #expect(CPUTopology(threadsPerCore: 3, coresPerDie: 5, diesPerPackage: 2000) == nil)
        #expect(CPUTopology(threadsPerCore: .max, coresPerDie: .max, diesPerPackage: .max) == nil)
    }
}
