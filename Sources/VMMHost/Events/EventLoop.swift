import CVMMLinux
import Glibc
import Synchronization

/// One thread's epoll loop. `post` and `stop` may be called from anywhere; everything else
/// belongs to the thread that runs the loop (or to its owner before `run`).
package final class EventLoop: @unchecked Sendable {
    // SAFETY (@unchecked Sendable): `watches` and what belongs to rings are touched by the loop's
    // own thread only, once it runs; `posted` and `stopping` are behind a lock and an atomic.
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

    /// A descriptor that the loop waits for.
    struct Watch {
        let handler: Handler
        var interest: Interest
        /// The poll of the ring that waits for it; nil while epoll does.
        var poll: UInt32?
    }

    let epoll: FileDescriptor
    private let wake: EventFD
    var watches: [Int32: Watch] = [:]
    /// The rings that were offered; the loop waits in the first.
    var rings: [IORing] = []
    var lastPoll: UInt32 = 0
    /// The ring has told that epoll has events, and epoll has not yet told that it has no more.
    var hasEpollEvents = false
    private let posted = Mutex<[Posted]>([])
    /// The kernel has refused to wait: nothing is served any more. Changes while `posted` is held.
    private let failed = Atomic<Bool>(false)
    private let stopping = Atomic<Bool>(false)

    package init() throws(HostError) {
        let raw = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard raw >= 0 else { throw .last("create an event loop") }
        epoll = FileDescriptor(owning: raw)
        wake = try EventFD()
        // Each signal is an event of its own, so nobody has to read the counter.
        try add(wake.descriptor, [.readable, .edgeTriggered]) {}
    }

    /// Calls `handler` on the loop's thread whenever `descriptor` is ready. One handler each.
    package func add(
        _ descriptor: FileDescriptor, _ interest: Interest, handler: @escaping Handler
    ) throws(HostError) {
        let fd = descriptor.rawValue
        if let ring = rings.first, interest == Self.ringInterest {
            watches[fd] = Watch(handler: handler, interest: interest)
            watch(fd, in: ring)
            return
        }
        guard control(EPOLL_CTL_ADD, fd, interest) else { throw .last("wait for a descriptor") }
        watches[fd] = Watch(handler: handler, interest: interest)
    }

    /// Waits for something else on a descriptor that was added. What is ready at the moment is an
    /// event again.
    package func change(_ descriptor: FileDescriptor, to interest: Interest) {
        let fd = descriptor.rawValue
        guard let watch = watches[fd] else { return }
        unwatch(fd)
        watches[fd] = Watch(handler: watch.handler, interest: interest)
        // Cannot fail: the descriptor is open and was added.
        if watch.poll == nil {
            _ = control(EPOLL_CTL_MOD, fd, interest)
        } else {
            _ = control(EPOLL_CTL_ADD, fd, interest)
        }
    }

    package func remove(_ descriptor: FileDescriptor) {
        let fd = descriptor.rawValue
        leaveRing(fd)
        guard let watch = watches[fd] else { return }
        unwatch(fd)
        watches[fd] = nil
        if watch.poll == nil { _ = control(EPOLL_CTL_DEL, fd, []) }
    }

    func control(_ operation: Int32, _ fd: Int32, _ interest: Interest) -> Bool {
        var event = unsafe epoll_event(events: interest.rawValue, data: epoll_data_t(fd: fd))
        // SAFETY: the event lives for the length of the call.
        return unsafe epoll_ctl(epoll.rawValue, operation, fd, &event) == 0
    }

    /// `run` has thrown, or is about to. Any thread.
    package var hasFailed: Bool { failed.load(ordering: .acquiring) }

    /// Runs `work` on the loop's thread, after what was posted before. False, and nothing is done,
    /// when the loop has failed. Any thread.
    @discardableResult
    package func post(_ work: sending @escaping () -> Void) -> Bool {
        let handedOver = Posted(work: work)
        let count = posted.withLock { queue in
            if hasFailed { return 0 }
            queue.append(handedOver)
            return queue.count
        }
        if count == 1 { wake.signal() }
        return count > 0
    }

    /// Makes `run` return after the work at hand. Any thread.
    package func stop() {
        stopping.store(true, ordering: .releasing)
        wake.signal()
    }

    /// Serves events until `stop`. Blocks without a timeout: nothing here polls. Throws only when
    /// the kernel refuses to wait, after which the loop serves nothing any more.
    package func run() throws(HostError) {
        do throws(HostError) {
            try serve()
        } catch {
            // Who waits for what was posted by then must not wait for ever.
            posted.withLock { _ in failed.store(true, ordering: .releasing) }
            while runPosted() {}
            throw error
        }
    }

    private func serve() throws(HostError) {
        // 32 events a call: more wait in the kernel and come with the next call.
        var events = unsafe [epoll_event](repeating: epoll_event(), count: 32)
        while !stopping.load(ordering: .acquiring) {
            if let ring = rings.first {
                unsafe try serve(ring, &events)
            } else {
                _ = unsafe try serveEpoll(&events, waiting: true)
            }
            // One batch a turn: a poster that never rests must not keep the handlers waiting.
            _ = runPosted()
        }
        // What was posted before `stop` runs now, not in a later `run` for another owner.
        while runPosted() {}
        stopping.store(false, ordering: .relaxed)
    }

    /// Serves one batch of epoll's events; false when there was none.
    func serveEpoll(_ events: inout [epoll_event], waiting: Bool) throws(HostError) -> Bool {
        let count = unsafe epoll_wait(
            epoll.rawValue, &events, Int32(events.count), waiting ? -1 : 0)
        guard count >= 0 || errno == EINTR else { throw .last("wait for events") }
        for index in 0..<max(0, Int(count)) {
            // A handler may have removed another one whose event is still in this batch.
            unsafe watches[events[index].data.fd]?.handler()
        }
        return count > 0
    }

    /// Runs what is posted at the moment; false when that is nothing.
    private func runPosted() -> Bool {
        let batch = posted.withLock { queue in
            // Also an empty list would be copied before it is emptied, and this is every turn.
            if queue.isEmpty { return [Posted]() }
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
