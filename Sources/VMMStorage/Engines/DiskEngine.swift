import VMMHost

/// How requests reach the kernel. One thread: the loop of the device that owns the engine.
package protocol DiskEngine: AnyObject {
    /// Readable when completions wait; nil when they are there as soon as `submit` returns.
    var completionSource: FileDescriptor? { get }
    /// Queues a request under `token`, unique among those in flight.
    func enqueue(_ operation: IORing.Operation, token: UInt64)
    /// Starts all that is queued.
    func submit()
    func nextCompletion() -> IORing.Completion?
    /// Blocks until a completion waits; only called with requests in flight.
    func wait()
}

/// All requests of one `submit` in one system call, finished in any order.
package final class RingEngine: DiskEngine {
    private let ring: IORing
    private let file: FileDescriptor
    package var completionSource: FileDescriptor? { ring.descriptor }

    /// `depth`: the most requests in flight at once.
    package init(_ file: FileDescriptor, depth: UInt32) throws(HostError) {
        self.file = file
        ring = try IORing(depth: depth)
    }

    package func enqueue(_ operation: IORing.Operation, token: UInt64) {
        if ring.enqueue(operation, on: file, token: token) { return }
        ring.submit()
        let placed = ring.enqueue(operation, on: file, token: token)
        precondition(placed, "the ring has room for every request in flight")
    }

    package func submit() { ring.submit() }
    package func nextCompletion() -> IORing.Completion? { ring.nextCompletion() }
    package func wait() { ring.wait() }
}

/// One blocking call a request: for kernels and files that io_uring does not serve.
package final class SynchronousEngine: DiskEngine {
    private let file: FileDescriptor
    private var finished: [IORing.Completion] = []
    package let completionSource: FileDescriptor? = nil

    package init(_ file: FileDescriptor) {
        self.file = file
    }

    package func enqueue(_ operation: IORing.Operation, token: UInt64) {
        finished.append(IORing.Completion(token: token, result: perform(operation)))
    }

    private func perform(_ operation: IORing.Operation) -> Int32 {
        do throws(HostError) {
            switch operation {
            case .read(let vector, let offset):
                return Self.result(file.read(into: vector, at: offset))
            case .write(let vector, let offset): return Self.result(file.write(vector, at: offset))
            case .flush: try file.synchronize()
            case .range(let operation, let offset, let count):
                try file.apply(operation, offset: offset, count: count)
            case .zeros(let offset, let count):
                let step = min(count, IORing.zeroByteCount)
                try file.writeZeros(offset: offset, count: step)
                return Int32(step)
            }
            return 0
        } catch {
            return -error.code
        }
    }

    private static func result(_ transfer: FileDescriptor.Transfer) -> Int32 {
        switch transfer {
        case .moved(let count): Int32(clamping: count)
        case .endOfFile, .wouldBlock: 0
        case .failed(let code): -code
        }
    }

    package func submit() {}

    package func nextCompletion() -> IORing.Completion? {
        finished.isEmpty ? nil : finished.removeFirst()
    }

    package func wait() {}
}
