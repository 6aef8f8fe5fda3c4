import CVMMLinux
import Glibc
import Synchronization
import VMMBase

/// A thread that runs an event loop of its own. Any thread may use it.
package final class LoopThread: Sendable {
    package let loop: EventLoop
    private let thread: HostThread
    /// Raised by the thread when a `run` is done; one `run` at a time.
    private let done: EventFD
    private let running = Mutex<Void>(())

    /// Starts the thread, on these CPUs of the host alone unless the list is empty. `name` is cut
    /// to 15 bytes by the kernel.
    package init(name: String, role: ThreadRole, cpus: [Int] = []) throws(HostError) {
        let loop = try EventLoop()
        self.loop = loop
        done = try EventFD()
        thread = try HostThread(name: name, role: role) {
            do throws(HostError) {
                try loop.run()
            } catch {
                Log.error("\(name): the thread serves nothing any more: \(error)")
            }
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

    /// The thread of each queue of a device; all of them or none. `cpus` tells the CPUs of each
    /// queue's thread; without it there are no more threads than CPUs, and queues share them:
    /// one that serves several takes more requests each time it wakes.
    package static func forQueues(
        of device: String, count: Int, cpus: ((Int) -> [Int])? = nil
    ) throws(HostError) -> [LoopThread] {
        var threads: [LoopThread] = []
        let threadCount = cpus == nil ? min(count, HostThread.processorCount) : count
        do throws(HostError) {
            for index in 0..<threadCount {
                threads.append(
                    try LoopThread(
                        name: "\(device)_q\(index)", role: .device, cpus: cpus?(index) ?? []))
            }
            return (0..<count).map { threads[$0 % threadCount] }
        } catch {
            for thread in threads { thread.end() }
            throw error
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

    /// Runs `work` on the thread and waits for its end. Not from the thread itself. What a loop
    /// that has failed does not take is done by the caller: nobody else touches anything there.
    package func run(_ work: @escaping @Sendable () -> Void) {
        running.withLock { _ in
            let isTaken = loop.post { [done] in
                work()
                done.signal()
            }
            guard isTaken else {
                thread.join()
                return work()
            }
            while !done.clear() {
                _ = done.descriptor.isReady(.readable, waitingMilliseconds: -1)
            }
        }
    }

    /// Ends the loop after what was posted, and waits for the thread. Again is no harm.
    package func end() {
        loop.stop()
        thread.join()
    }
}
