import CAllocationCount
import Synchronization
import VMMBase
import VMMHost
import VMMNetwork

/// A switch on a thread of its own, and frames that go through it from one port to another.
struct SwitchMeasurement {
    private struct Usage {
        var nanoseconds: UInt64 = 0
        var allocations: UInt64 = 0
    }

    private let thread: LoopThread
    private let frames: LoopBound<FrameSwitch>
    private let near: FileDescriptor
    private let far: FileDescriptor

    init() throws {
        let thread = try LoopThread(name: "switch", role: .tool)
        let ends = [try UnixSocket.streamPair(), try UnixSocket.streamPair()]
        let frames = LoopBound(
            adopting: try FrameSwitch(loop: thread.loop, clock: SystemClock()))
        let ports = LoopBound(adopting: ends.map { $0.1 })
        thread.run {
            frames.withValue { frames in
                ports.withValue { ports in
                    for port in ports { frames.add(port) }
                }
            }
        }
        self.thread = thread
        self.frames = frames
        near = ends[0].0
        far = ends[1].0
        // The switch learns where both are.
        transfer(Stream.frames(1, byteCount: 60, to: 4, from: 2), from: far, to: near)
    }

    func measure(byteCount: Int, rounds: Int) -> Result {
        let batch = max(1, min(64, 100_000 / byteCount))
        let bytes = Stream.frames(batch, byteCount: byteCount)
        for _ in 0..<100 { transfer(bytes, from: near, to: far) }
        let before = usage
        for _ in 0..<rounds { transfer(bytes, from: near, to: far) }
        let after = usage
        return Result(
            nanoseconds: Double(after.nanoseconds - before.nanoseconds) / Double(rounds * batch),
            allocations: after.allocations - before.allocations, systemCalls: nil)
    }

    /// What it takes to decide where a frame goes, between two ports that are known.
    static func decision(rounds: Int) -> Result {
        var learning = LearningSwitch(portLimit: FrameSwitch.portLimit)
        let (near, far): (LearningSwitch.Address, LearningSwitch.Address) = (2, 4)
        var forwarded = 0
        func pass(_ count: Int) {
            for round in 0..<count {
                let isThere = round & 1 == 0
                let decision = learning.decide(
                    destination: isThere ? far : near, source: isThere ? near : far,
                    from: isThere ? 0 : 1, now: UInt64(round))
                if case .forward = decision { forwarded += 1 }
            }
        }
        pass(100)
        let before = (thread_cpu_ns(), allocation_count())
        pass(rounds)
        let after = (thread_cpu_ns(), allocation_count())
        precondition(forwarded > rounds, "the ports are known")
        return Result(
            nanoseconds: Double(after.0 - before.0) / Double(rounds),
            allocations: after.1 - before.1, systemCalls: 0)
    }

    func finish() {
        thread.run { [frames] in frames.withValue { $0.finish() } }
        thread.end()
    }

    private func transfer(_ bytes: [UInt8], from: FileDescriptor, to: FileDescriptor) {
        _ = from.send(bytes, 0..<bytes.count)
        var left = bytes.count
        var received = [UInt8](repeating: 0, count: bytes.count)
        while left > 0 {
            _ = to.isReady(.readable, waitingMilliseconds: -1)
            guard case .moved(let count) = to.receiveStream(into: &received, 0..<left) else {
                return
            }
            left -= count
        }
    }

    private var usage: Usage {
        let usage = Mutex(Usage())
        thread.run {
            usage.withLock {
                $0 = Usage(nanoseconds: thread_cpu_ns(), allocations: allocation_count())
            }
        }
        return usage.withLock { $0 }
    }
}
