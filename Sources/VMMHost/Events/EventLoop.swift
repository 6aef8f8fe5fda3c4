import CVMMLinux
import Glibc
import Synchronization

/// One thread's epoll loop. `post` and `stop` may be called from anywhere; everything else
/// belongs to the thread that runs the loop (or to its owner before `run`).
package final class EventLoop: @unchecked Sendable {
    // SAFETY (@unchecked Sendable): `handlers` is touched by the loop's own thread only, once it
    // runs; `posted` and `stopping` are behind a lock and an atomic.
    package typealias Handler = () -> Void

    /// What to wait for. Edge-triggered: a handler takes all there is, or is woken no more.
    package struct Interest: OptionSet, Sendable {
        package let rawValue: UInt32
        package init(rawValue: UInt32) { self.rawValue = rawValue }

        package static let readable = Interest(rawValue: EPOLLIN.rawValue)
        package static let writable = Interest(rawValue: EPOLLOUT.rawValue)
        package static let edgeTriggered = Interest(rawValue: EPOLLET.rawValue)
    }

    private struct Posted: @unchecked Sendable {
        // SAFETY (@unchecked Sendable): `post` took the closure as `sending`; the loop's thread
        // alone calls it.
        let work: Handler
    }

    private let epoll: FileDescriptor
    private let wake: EventFD
    private var handlers: [Int32: Handler] = [:]
    private let posted = Mutex<[Posted]>([])
    private let stopping = Atomic<Bool>(false)

    package init() throws(HostError) {
        let raw = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard raw >= 0 else { throw .last("create an event loop") }
        epoll = FileDescriptor(owning: raw)
        wake = try EventFD()
        try add(wake.descriptor, [.readable]) { [wake] in wake.clear() }
    }

    /// Calls `handler` on the loop's thread whenever `descriptor` is ready. One handler each.
    package func add(
        _ descriptor: FileDescriptor, _ interest: Interest, handler: @escaping Handler
    ) throws(HostError) {
        var event = unsafe epoll_event(
            events: interest.rawValue, data: epoll_data_t(fd: descriptor.rawValue))
        guard
            unsafe epoll_ctl(epoll.rawValue, EPOLL_CTL_ADD, descriptor.rawValue, &event) == 0
        else { throw .last("wait for a descriptor") }
        handlers[descriptor.rawValue] = handler
    }

    package func remove(_ descriptor: FileDescriptor) {
        if handlers.removeValue(forKey: descriptor.rawValue) != nil {
            var event = unsafe epoll_event()
            unsafe _ = epoll_ctl(epoll.rawValue, EPOLL_CTL_DEL, descriptor.rawValue, &event)
        }
    }

    /// Runs `work` on the loop's thread, after what was posted before. Any thread.
    package func post(_ work: sending @escaping () -> Void) {
        let handedOver = Posted(work: work)
        let isFirst = posted.withLock { queue in
            queue.append(handedOver)
            return queue.count == 1
        }
        if isFirst { wake.signal() }
    }

    /// Makes `run` return after the work at hand. Any thread.
    package func stop() {
        stopping.store(true, ordering: .releasing)
        wake.signal()
    }

    /// Serves events until `stop`. Blocks without a timeout: nothing here polls. Throws only when
    /// the kernel refuses to wait, after which the loop serves nothing any more.
    package func run() throws(HostError) {
        // 32 events a call: more wait in the kernel and come with the next call.
        var events = unsafe [epoll_event](repeating: epoll_event(), count: 32)
        while !stopping.load(ordering: .acquiring) {
            let count = unsafe epoll_wait(epoll.rawValue, &events, Int32(events.count), -1)
            guard count >= 0 || errno == EINTR else { throw .last("wait for events") }
            for index in 0..<max(0, Int(count)) {
                // A handler may have removed another one whose event is still in this batch.
                unsafe handlers[events[index].data.fd]?()
            }
            // One batch a turn: a poster that never rests must not keep the handlers waiting.
            _ = runPosted()
        }
        // What was posted before `stop` runs now, not in a later `run` for another owner.
        while runPosted() {}
        stopping.store(false, ordering: .relaxed)
    }

    /// Runs what is posted at the moment; false when that is nothing.
    private func runPosted() -> Bool {
        let batch = posted.withLock { queue in
            let batch = queue
            queue.removeAll(keepingCapacity: true)
            return batch
        }
        for item in batch { item.work() }
        return !batch.isEmpty
    }
}

/// A value that belongs to one loop: it may be held anywhere and touched only in `EventLoop.post`
/// or a handler of that loop.
package final class LoopBound<Value>: @unchecked Sendable {
    // SAFETY (@unchecked Sendable): `value` is reached through `withValue` alone, which callers
    // use on the loop's thread, or when that thread does not run.
    private var value: Value

    package init(_ value: sending Value) {
        self.value = value
    }

    /// For a value that was made on the way to its loop: the caller does not keep it.
    package init(adopting value: Value) {
        self.value = value
    }

    /// Something else of the same loop, made from the value.
    package func map<Other>(_ body: (Value) throws -> Other) rethrows -> LoopBound<Other> {
        LoopBound<Other>(adopting: try body(value))
    }

    package func withValue<Result>(_ body: (inout Value) throws -> Result) rethrows -> Result {
        try body(&value)
    }
}
