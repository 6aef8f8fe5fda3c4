import CVMMLinux
import Glibc
import Synchronization

/// A thread that runs an event loop of its own. Any thread may use it.
package final class LoopThread: Sendable {
    package let loop: EventLoop
    private let thread: HostThread
    /// Raised by the thread when a `run` is done; one `run` at a time.
    private let done: EventFD
    private let running = Mutex<Void>(())

    /// Starts the thread, on these CPUs of the host alone unless the list is empty. `name` is cut
    /// to 15 bytes by the kernel.
    package init(name: String, cpus: [Int] = []) throws(HostError) {
        let loop = try EventLoop()
        self.loop = loop
        done = try EventFD()
        thread = try HostThread(name: name) {
            // Fails only when the kernel refuses to wait; then the thread serves nothing more.
            try? loop.run()
        }
        guard !cpus.isEmpty else { return }
        let failure = Atomic<Int32>(0)
        run { failure.store(Self.keep(on: cpus), ordering: .relaxed) }
        let code = failure.load(ordering: .relaxed)
        if code != 0 {
            end()
            throw HostError("keep a thread on CPUs", "\(cpus)", code: code)
        }
    }

    /// 1024 CPUs, as glibc's set has.
    package static let cpuLimit = 1024

    private static func keep(on cpus: [Int]) -> Int32 {
        var words = [UInt64](repeating: 0, count: cpuLimit / 64)
        for cpu in cpus where (0..<cpuLimit).contains(cpu) { words[cpu / 64] |= 1 << (cpu % 64) }
        // SAFETY: the kernel reads as many words as the array has.
        let result = unsafe words.withUnsafeBufferPointer { buffer in
            unsafe vmm_set_affinity(buffer.baseAddress, buffer.count)
        }
        return result == 0 ? 0 : errno
    }

    /// Runs `work` on the thread and waits for its end. Not from the thread itself.
    package func run(_ work: @escaping @Sendable () -> Void) {
        running.withLock { _ in
            loop.post { [done] in
                work()
                done.signal()
            }
            while !done.clear() {
                _ = done.descriptor.isReady(.readable, waitingMilliseconds: -1)
            }
        }
    }

    /// Ends the loop after what was posted, and waits for the thread.
    package func end() {
        loop.stop()
        thread.join()
    }
}
