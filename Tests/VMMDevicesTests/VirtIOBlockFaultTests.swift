import Foundation
import Testing
import VMMBase
import VMMHost
import VMMStorage
import VMMTestSupport
import VMMVirtIO

@testable import VMMDevices

/// A disk on which requests fail, are torn, delayed and lost, under the same drivers as a good one.
@Suite("VirtIOBlock on a bad disk")
struct VirtIOBlockFaultTests {
    /// Each effect hits one request in eight.
    private static func rules(_ effects: [FaultRule.Effect]) -> [FaultRule] {
        effects.map { effect in
            var rule = FaultRule(Set(FaultRule.Operation.allCases), effect)
            rule.probability = 125
            return rule
        }
    }

    private static let errors: [FaultRule.Effect] = [
        .fail(code: EIO), .fail(code: ENOSPC), .tear(code: EIO), .delay(nanoseconds: 1),
    ]

    @Test(
        "a hostile driver gets a fault or an answer from a bad disk, too",
        arguments: VirtIODeviceContract.Scenario.allCases)
    func contract(scenario: VirtIODeviceContract.Scenario) throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("disk")
        try Data(count: 4096).write(to: URL(filePath: path))
        let contract = VirtIODeviceContract {
            var options = DiskOptions()
            options.image.isReadOnly = true
            let file = FaultyFile(
                try HostFile(path: path, isReadOnly: true), rules: [], seed: 1)
            let disk = try Disk(ImageOpener.open(file, options.image), options)
            file.rules = Self.rules(Self.errors + [.drop])
            return VirtIOBlock(
                id: "_disk0", disk: disk, queueSizes: [128, 64], serial: nil, clock: ManualClock())
        }
        #expect(try contract.violations(scenario) == [])
    }

    @Test(
        "each request gets one answer, and a good one is the truth",
        arguments: 1...8 as ClosedRange<UInt64>)
    func answers(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let fixture = try BlockFixture(faults: (Self.rules(Self.errors), seed))
        var sectors = (0..<UInt8(BlockFixture.sectorCount)).map { Optional($0) }
        var failures = 0
        for number in 0..<200 {
            // Room for buffers, from time to time.
            if number % 20 == 19 {
                fixture.device.quiesce()
                try fixture.driver.activate()
            }
            let sector = Int.random(in: 0..<sectors.count, using: &random)
            let byte = UInt8.random(in: 0...255, using: &random)
            if Bool.random(using: &random) {
                let data = fixture.driver.readable(Array(repeating: byte, count: 512))
                let header = fixture.header(BlockRequestType.write, sector: UInt64(sector))
                let answer = try fixture.perform(header, [data])
                #expect(answer.status == 0 || answer.status == 1, "seed \(seed)")
                // Of a failed write nobody knows what is there.
                sectors[sector] = answer.status == 0 ? byte : nil
                failures += Int(answer.status ?? 0)
            } else {
                let data = fixture.driver.writable(512)
                let header = fixture.header(BlockRequestType.read, sector: UInt64(sector))
                let answer = try fixture.perform(header, [data])
                #expect(answer.status == 0 || answer.status == 1, "seed \(seed)")
                failures += Int(answer.status ?? 0)
                guard answer.status == 0, let expected = sectors[sector] else { continue }
                let isTrue = fixture.driver.contents(data).allSatisfy { $0 == expected }
                #expect(isTrue, "seed \(seed), request \(number), sector \(sector)")
            }
        }
        #expect(failures > 20)
    }

    @Test("after a flush that failed none succeeds any more")
    func lostWrites() throws {
        var rule = FaultRule([.synchronize], .fail(code: EIO))
        rule.limit = 1
        let fixture = try BlockFixture(faults: ([rule], 1))
        let flush = fixture.header(BlockRequestType.flush)

        let statuses = try (0..<3).map { _ in try fixture.perform(flush).status }

        #expect(statuses == [1, 1, 1])
    }
}
