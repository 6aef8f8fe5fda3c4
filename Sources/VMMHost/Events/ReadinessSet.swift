import CVMMLinux
import Glibc

/// Many descriptors that are waited for as one: a loop waits for `descriptor`, which is readable
/// while one of them is ready, and its handler asks which. A member has a token instead of a
/// handler, so thousands of them cost no closures. One thread at a time.
@safe package final class ReadinessSet {
    /// What happened to a member.
    package struct Event {
        /// The number that the member was added with.
        package let token: UInt64
        /// Bytes, a client, or the end of the stream can be read.
        package let isReadable: Bool
        package let isWritable: Bool
        /// Nothing can be sent either way any more; what has arrived can still be read.
        package let isHungUp: Bool
    }

    /// Events a call: what is left comes with the next one.
    package static let batch = 64

    /// Readable while a member is ready.
    package let descriptor: FileDescriptor
    private var events = unsafe [epoll_event](repeating: epoll_event(), count: batch)

    package init() throws(HostError) {
        let raw = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard raw >= 0 else { throw .last("create a set of descriptors") }
        descriptor = FileDescriptor(owning: raw)
    }

    /// Adds a member, edge-triggered: each change is told once, so take all there is. A member
    /// leaves the set when it is closed.
    package func add(
        _ member: FileDescriptor, token: UInt64, _ interest: EventLoop.Interest = .readable
    ) throws(HostError) {
        guard control(EPOLL_CTL_ADD, member, token, interest) else {
            throw .last("wait for a descriptor")
        }
    }

    /// Changes what a member is waited for. If it is ready at once, that is told, too.
    package func change(
        _ member: FileDescriptor, token: UInt64, _ interest: EventLoop.Interest
    ) {
        // Fails only for a descriptor that is no member.
        _ = control(EPOLL_CTL_MOD, member, token, interest)
    }

    private func control(
        _ operation: Int32, _ member: FileDescriptor, _ token: UInt64,
        _ interest: EventLoop.Interest
    ) -> Bool {
        var event = unsafe epoll_event(
            events: interest.union(.edgeTriggered).rawValue, data: epoll_data_t(u64: token))
        // SAFETY: the event lives for the length of the call.
        return unsafe epoll_ctl(descriptor.rawValue, operation, member.rawValue, &event) == 0
    }

    /// Collects what has happened, at most `batch` events, and returns their number.
    package func collect() -> Int {
        // SAFETY: the array has room for `batch` events.
        let count = retryingInterrupts {
            unsafe epoll_wait(descriptor.rawValue, &events, Int32(Self.batch), 0)
        }
        return max(0, Int(count))
    }

    /// One of the events that `collect` found last.
    package subscript(index: Int) -> Event {
        let event = unsafe events[index]
        let flags = unsafe event.events
        return unsafe Event(
            token: event.data.u64,
            isReadable: flags & EPOLLIN.rawValue != 0,
            isWritable: flags & EPOLLOUT.rawValue != 0,
            isHungUp: flags & (EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0)
    }
}
