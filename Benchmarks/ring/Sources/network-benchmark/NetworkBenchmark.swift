import CAllocationCount
import VMMBase
import VMMDevices
import VMMHost
import VMMNetwork
import VMMVirtIO

/// What one frame measured.
struct Result {
    /// Of CPU time.
    let nanoseconds: Double
    /// In all rounds together.
    let allocations: UInt64
    /// For each frame.
    let systemCalls: Double?

    var json: String {
        "{\"ns\": \(nanoseconds), \"allocations\": \(allocations), \"system_calls\": "
            + (systemCalls.map { "\($0)" } ?? "null") + "}"
    }
}

/// What the way of a frame costs on this machine, system calls included: the device serves a
/// queue with a batch of frames, and a wire without a network behind it; then the switch. Prints
/// one line of JSON.
@main
enum NetworkBenchmark {
    /// Kernels let 10 datagrams wait (net.unix.max_dgram_qlen).
    private static let batch = 8
    private static let rounds = 4000
    /// With mergeable buffers and large frames, as Linux has them by a tap.
    private static let tapFeatures: UInt64 =
        Feature.ring | Feature.version1 | 1 << 15 | 1 << 1 | 1 << 7 | 1 << 8
    /// As Linux has them without offloads.
    private static let streamFeatures: UInt64 = Feature.ring | Feature.version1 | 1 << 15

    static func main() throws {
        var results: [(String, Result)] = []
        let header = Int(TapInterface.headerByteCount)
        for (name, count) in [("60 bytes", 60), ("1514 bytes", 1514), ("64 KiB", 65226)] {
            let batch = count > 1514 ? 2 : batch
            results.append(
                (
                    "transmit by a tap, \(name)",
                    try transmit(DatagramWire(), count + header, batch, tapFeatures)
                ))
            results.append(
                (
                    "receive by a tap, \(name)",
                    try receive(DatagramWire(), count + header, batch, tapFeatures)
                ))
        }
        for (name, count) in [("60 bytes", 60), ("1514 bytes", 1514)] {
            results.append(
                (
                    "transmit by a stream, \(name)",
                    try transmit(StreamWire(), count + header, 64, streamFeatures)
                ))
            results.append(
                (
                    "receive by a stream, \(name)",
                    try receive(StreamWire(), count + header, 64, streamFeatures)
                ))
        }
        let frameSwitch = try SwitchMeasurement()
        for count in [60, 1514] {
            results.append(
                (
                    "through the switch, \(count) bytes",
                    frameSwitch.measure(byteCount: count, rounds: rounds / 4)
                ))
        }
        frameSwitch.finish()
        results.append(
            ("the switch's decision", SwitchMeasurement.decision(rounds: 1000 * rounds)))
        print("{\(results.map { "\"\($0)\": \($1.json)" }.joined(separator: ", "))}")
    }

    private static func makeDevice(_ wire: any Wire) -> VirtIONetwork {
        VirtIONetwork(
            id: "net", backends: [wire.backend],
            VirtIONetwork.Parameters(
                mac: .random(), offloads: NetworkOffloads(checksum: true, tcp: true, udp: false),
                queueSize: 256))
    }

    private static func makeMemory() throws -> GuestMemory {
        guard let range = GuestRange(start: GuestAddress(0), count: 4 << 20) else {
            throw GuestFault("no memory", 0)
        }
        return try GuestMemory(ranges: [range])
    }

    private static func transmit(
        _ wire: any Wire, _ byteCount: Int, _ batch: Int, _ features: UInt64
    ) throws -> Result {
        // A page a piece, as Linux has it.
        let pieces = (byteCount + 4095) / 4096
        let driver = try NetworkDriver(
            try makeMemory(), features: features, requests: batch, pieces: pieces,
            byteCount: UInt32(byteCount / pieces), isWritable: false)
        let device = makeDevice(wire)
        try device.activate([nil, driver.queue, nil], features: features)
        return try measure(wire, batch, before: { driver.offer(batch) }) {
            try device.service(queue: 1)
        } after: {
            wire.drain()
        }
    }

    private static func receive(
        _ wire: any Wire, _ byteCount: Int, _ batch: Int, _ features: UInt64
    ) throws -> Result {
        let buffers = 256
        let driver = try NetworkDriver(
            try makeMemory(), features: features, requests: buffers, pieces: 1,
            byteCount: 1536, isWritable: true)
        let device = makeDevice(wire)
        try device.activate([driver.queue, nil, nil], features: features)
        driver.offer(buffers)
        return try measure(wire, batch, before: { wire.put(batch, byteCount: byteCount) }) {
            try device.service(queue: 0)
        } after: {
            driver.offerUsed(of: buffers)
        }
    }

    /// The best of many short batches: what the code costs when nobody disturbs it.
    private static func measure(
        _ wire: any Wire, _ batch: Int, before: () -> Void, _ service: () throws -> Void,
        after: () -> Void
    ) throws -> Result {
        var best = UInt64.max
        var allocations: UInt64 = 0
        for round in 0..<rounds {
            before()
            let allocationsBefore = allocation_count()
            let start = thread_cpu_ns()
            try service()
            best = min(best, thread_cpu_ns() - start)
            // The first rounds make the room that the others use.
            if round >= 100 { allocations += allocation_count() - allocationsBefore }
            after()
        }
        return Result(
            nanoseconds: Double(best) / Double(batch), allocations: allocations,
            systemCalls: wire.systemCalls.map { Double($0) / Double(rounds * batch) })
    }
}
