/// Slots in the order of their coming, each at most once. All in constant time; nothing is
/// allocated once the list has seen the highest slot.
struct SlotList {
    private static let end: Int32 = -1
    private static let absent: Int32 = -2

    private struct Link {
        var next = SlotList.absent
        var previous = SlotList.absent
    }

    private var links: [Link] = []
    private var head = end
    private var tail = end

    /// The slot that came first.
    var first: Int? { head == Self.end ? nil : Int(head) }

    func contains(_ slot: Int) -> Bool {
        slot < links.count && links[slot].next != Self.absent
    }

    /// Adds a slot at the end, unless it is in the list already.
    mutating func append(_ slot: Int) {
        if contains(slot) { return }
        while links.count <= slot { links.append(Link()) }
        let added = Int32(truncatingIfNeeded: slot)
        links[slot] = Link(next: Self.end, previous: tail)
        if tail == Self.end { head = added } else { links[Int(tail)].next = added }
        tail = added
    }

    /// Takes a slot out, if it is in the list.
    mutating func remove(_ slot: Int) {
        guard contains(slot) else { return }
        let link = links[slot]
        links[slot] = Link()
        if link.previous == Self.end {
            head = link.next
        } else {
            links[Int(link.previous)].next = link.next
        }
        if link.next == Self.end {
            tail = link.previous
        } else {
            links[Int(link.next)].previous = link.previous
        }
    }
}
