import VMMHost

/// How requests reach the kernel without waiting for them. One thread: the loop of the queue that
/// owns the engine. Files are named by their place in the list given at creation.
package protocol DiskEngine: AnyObject {
    /// Readable when completions wait.
    var completionSource: FileDescriptor { get }
    /// The ring in which the queue's loop may wait: `completionSource` is its descriptor.
    var ring: IORing? { get }
    /// False for what the engine cannot do: the slow lane does it then.
    func supports(_ operation: DiskOperation) -> Bool
    /// Queues an operation under `token`, unique among those in flight. The vector stays untouched
    /// until its completion.
    func enqueue(_ operation: DiskOperation, on file: Int, token: UInt64)
    /// Starts all that is queued, in one system call.
    func submit()
    func nextCompletion() -> IORing.Completion?
    /// Blocks until a completion waits; only called with operations in flight.
    func wait()
}

extension DiskEngine {
    package var ring: IORing? { nil }
}

/// The engines by name.
package enum DiskEngineKind: Equatable, Sendable {
    /// io_uring: everything, asynchronously.
    case ring
    /// Linux AIO: asynchronous with direct I/O; through the page cache its submission waits.
    case aio
    /// Blocking calls, all on the slow lane.
    case synchronous
}

/// io_uring: all requests of one `submit` in one system call, finished in any order.
package final class RingEngine: DiskEngine {
    private let own: IORing
    private let files: [FileDescriptor]
    package var ring: IORing? { own }
    package var completionSource: FileDescriptor { own.descriptor }

    /// `depth`: the most operations in flight at once.
    package init(_ files: [FileDescriptor], depth: UInt32) throws(HostError) {
        self.files = files
        own = try IORing(depth: depth)
    }

    package func supports(_ operation: DiskOperation) -> Bool { true }

    package func enqueue(_ operation: DiskOperation, on file: Int, token: UInt64) {
        own.enqueue(operation, on: files[file], token: token)
    }

    package func submit() { own.submit() }
    package func nextCompletion() -> IORing.Completion? { own.nextCompletion() }
    package func wait() { own.wait() }
}

/// Linux AIO (io_submit(2)): for kernels and sandboxes without io_uring.
package final class AIOEngine: DiskEngine {
    private let context: AIOContext
    private let files: [FileDescriptor]
    package var completionSource: FileDescriptor { context.completions.descriptor }

    /// `depth`: the most operations in flight at once.
    package init(_ files: [FileDescriptor], depth: UInt32) throws(HostError) {
        self.files = files
        context = try AIOContext(depth: depth)
    }

    /// The interface has no call for ranges.
    package func supports(_ operation: DiskOperation) -> Bool {
        switch operation {
        case .read, .write, .flush: true
        case .range, .zeros: false
        }
    }

    package func enqueue(_ operation: DiskOperation, on file: Int, token: UInt64) {
        context.enqueue(operation, on: files[file], token: token)
    }

    package func submit() { context.submit() }
    package func nextCompletion() -> IORing.Completion? { context.nextCompletion() }
    package func wait() { context.wait() }
}
