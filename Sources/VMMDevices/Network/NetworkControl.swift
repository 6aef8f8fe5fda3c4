import VMMBase
import VMMHost
import VMMVirtIO

/// The control queue (VirtIO 1.3, 5.1.6.5): a class, a command and its data in; an answer out.
struct NetworkControl {
    /// What a driver asks of the device.
    enum Command: Equatable {
        /// So many pairs of queues shall be used, of those that there are.
        case usePairs(Int)
        /// Of the negotiated features, these are wanted at present.
        case setOffloads(UInt64)
        /// The driver has announced its addresses.
        case announced
        /// Filters for addresses and VLANs: the guest gets all frames, and filters by itself.
        case filter
    }

    private enum Class {
        static let receiveMode: UInt8 = 0
        static let vlan: UInt8 = 2
        static let announce: UInt8 = 3
        static let multiqueue: UInt8 = 4
        static let offloads: UInt8 = 5
    }

    private static let ok: UInt8 = 0
    private static let error: UInt8 = 1
    /// Commands of the control queue are rare; a driver that has more waits its turn.
    private static let budget = 64

    private let queue: VirtQueue
    private let chain: DescriptorChain

    init?(_ queue: VirtQueue) throws(HostError) {
        guard let chain = try queue.makeChains(1).first else { return nil }
        self.queue = queue
        self.chain = chain
    }

    /// Answers what waits; `perform` says whether a command was carried out.
    func service(_ perform: (Command) -> Bool) throws(GuestFault) {
        var budget = Self.budget
        repeat {
            queue.suppressDoorbell()
            while budget > 0, try queue.pop(into: chain) {
                budget -= 1
                guard let answer = chain.writable.removeLastByte() else {
                    throw GuestFault("control command without an answer", UInt64(chain.head))
                }
                let isDone = Self.command(chain.readable).map(perform) ?? false
                answer.store(isDone ? Self.ok : Self.error)
                queue.push(chain, written: 1)
            }
        } while queue.armDoorbell() && budget > 0
        queue.notify()
        if budget == 0 { queue.serviceAgain() }
    }

    private static func command(_ bytes: GuestVector) -> Command? {
        guard let kind = bytes.load(UInt8.self, at: 0), let code = bytes.load(UInt8.self, at: 1)
        else { return nil }
        switch (kind, code) {
        case (Class.receiveMode, 0...5), (Class.vlan, 0...1): return .filter
        case (Class.announce, 0): return .announced
        case (Class.multiqueue, 0):
            return bytes.load(UInt16.self, at: 2).map { .usePairs(Int($0)) }
        case (Class.offloads, 0):
            return bytes.load(UInt64.self, at: 2).map { .setOffloads($0) }
        default: return nil
        }
    }
}
