import VMMBase
import VMMHost

/// The part of a device that serves one queue on a thread of the queue's own.
package protocol QueueServer: AnyObject {
    /// Host descriptors whose readiness the queue wants to hear of, edge-triggered.
    var wakeSources: [FileDescriptor] { get }
    /// The ring of requests behind one of `wakeSources`: the loop may wait in it.
    var ring: IORing? { get }
    /// The driver rang the queue's bell.
    func service() throws(GuestFault)
    /// One of `wakeSources` became readable.
    func wake() throws(GuestFault)
    /// Waits for what the host has been asked to do. What a rate limit holds back stays held.
    func settle()
    /// Answers all that was taken off the queue, also what a rate limit holds back.
    func drain()
}

extension QueueServer {
    package var ring: IORing? { nil }
    package func settle() {}
    package func drain() {}
}

/// Which queue of an active device is served where.
package struct QueueAssignment: Sendable {
    package let queue: Int
    package let thread: LoopThread
    package let server: LoopBound<any QueueServer>

    package init(queue: Int, thread: LoopThread, server: LoopBound<any QueueServer>) {
        self.queue = queue
        self.thread = thread
        self.server = server
    }
}
