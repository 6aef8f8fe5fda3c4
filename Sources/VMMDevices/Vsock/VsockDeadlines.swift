/// When connections that wait for somebody lose their patience. A slot waits for one thing at a
/// time, and each kind of waiting has one length, so that every list is in the order of its ends.
struct VsockDeadlines {
    enum Wait: Int, CaseIterable {
        /// For a client's first line.
        case greeting
        /// For the guest's answer to a request.
        case request
        /// For room in the queue of a listener of the host.
        case retry
        /// For room at the guest.
        case credit
        /// For the guest's confirmation of the end.
        case close

        var nanoseconds: UInt64 {
            switch self {
            case .greeting: 10_000_000_000
            // Linux always answers, in the order of the requests: the last of thousands that come
            // at once is late on a busy machine, 10 s were not enough in a loaded bed.
            case .request: 60_000_000_000
            case .retry: 10_000_000
            // Linux tells of its room unasked, and then an answer is one packet too many.
            case .credit: 20_000_000
            case .close: 2_000_000_000
            }
        }
    }

    private struct Entry {
        var wait = Wait.greeting
        var end: UInt64 = 0
    }

    private var entries: [Entry] = []
    private var lists = [SlotList](repeating: SlotList(), count: Wait.allCases.count)

    /// A slot begins to wait; an earlier wait of it is forgotten.
    mutating func start(_ wait: Wait, _ slot: Int, now: UInt64) {
        stop(slot)
        while entries.count <= slot { entries.append(Entry()) }
        entries[slot] = Entry(wait: wait, end: now &+ wait.nanoseconds)
        lists[wait.rawValue].append(slot)
    }

    /// A slot waits no more.
    mutating func stop(_ slot: Int) {
        guard slot < entries.count else { return }
        lists[entries[slot].wait.rawValue].remove(slot)
    }

    func isWaiting(for wait: Wait, _ slot: Int) -> Bool {
        slot < entries.count && entries[slot].wait == wait && lists[wait.rawValue].contains(slot)
    }

    /// The next end of a wait; nil when nobody waits.
    var next: UInt64? {
        var least: UInt64?
        for list in lists {
            guard let slot = list.first else { continue }
            least = min(least ?? .max, entries[slot].end)
        }
        return least
    }

    /// Takes a slot whose wait has ended.
    mutating func takeEnded(now: UInt64) -> (wait: Wait, slot: Int)? {
        for wait in Wait.allCases {
            guard let slot = lists[wait.rawValue].first, entries[slot].end <= now else { continue }
            stop(slot)
            return (wait, slot)
        }
        return nil
    }
}
