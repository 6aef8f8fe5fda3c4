import VMMHost
import VMMVirtIO

/// Receive buffers that the driver has offered and no frame has filled yet, oldest first, and the
/// unused chains to take more into. A ring over a fixed array: nothing is allocated for a frame.
struct WaitingBuffers {
    private let chains: [DescriptorChain]
    private var first = 0
    /// How many buffers wait.
    private(set) var count = 0
    /// What the waiting buffers hold together, in bytes.
    private(set) var byteCount: UInt64 = 0

    init(_ chains: [DescriptorChain]) {
        self.chains = chains
    }

    /// The chain to take the next buffer into; nil when all wait already.
    var nextFree: DescriptorChain? {
        count < chains.count ? chains[(first + count) % chains.count] : nil
    }

    /// Counts the chain that `nextFree` gave as waiting.
    mutating func addNextFree() {
        guard let chain = nextFree else { return }
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
