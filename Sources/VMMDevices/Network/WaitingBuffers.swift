import VMMHost
import VMMVirtIO

/// Receive buffers that the driver has offered and no frame has filled yet, oldest first, and the
/// unused chains to take more into. A ring that grows to what a frame needs: after the first
/// frames nothing is allocated, and a driver of small needs costs little memory.
struct WaitingBuffers {
    /// Chains that are made at once.
    private static let step = 16

    private let queue: VirtQueue?
    private let limit: Int
    private var chains: [DescriptorChain] = []
    private var first = 0
    /// How many buffers wait.
    private(set) var count = 0
    /// What the waiting buffers hold together, in bytes.
    private(set) var byteCount: UInt64 = 0

    /// Room for `limit` buffers of a queue; without a queue for none.
    init(of queue: VirtQueue? = nil, limit: Int = 0) {
        self.queue = queue
        self.limit = limit
    }

    /// The chain to take the next buffer into; nil when as many wait as may.
    mutating func nextFree() -> DescriptorChain? {
        if count == chains.count { grow() }
        return count < chains.count ? chains[(first + count) % chains.count] : nil
    }

    /// A host that gives no memory has the driver's next doorbell try again.
    private mutating func grow() {
        guard let queue, chains.count < limit,
            let more = try? queue.makeChains(min(Self.step, limit - chains.count))
        else { return }
        chains = Array(chains[first...] + chains[..<first]) + more
        first = 0
    }

    /// Counts the chain that `nextFree` gave as waiting.
    mutating func addNextFree() {
        guard let chain = nextFree() else { return }
        count += 1
        byteCount += chain.writable.byteCount
    }

    /// The waiting buffer at `index`, which is below `count`.
    subscript(index: Int) -> DescriptorChain { chains[(first + index) % chains.count] }

    /// Takes the oldest buffer, of which there is one.
    mutating func removeFirst() -> DescriptorChain {
        let chain = chains[first]
        first = (first + 1) % chains.count
        count -= 1
        byteCount -= chain.writable.byteCount
        return chain
    }
}
