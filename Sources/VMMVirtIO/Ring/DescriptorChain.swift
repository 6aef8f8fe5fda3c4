import VMMBase
import VMMHost

/// One request of the driver: what the device may read, and what it may write. Reused from
/// request to request, so that none is allocated on the way.
package final class DescriptorChain {
    /// Names the request when it is given back.
    package var head: UInt16 { currentHead }
    /// Private, so that the compiler sees all accesses and checks none at run time (hot path).
    private var currentHead: UInt16 = 0
    /// How many slots of a packed ring the request took.
    var slots: UInt16 = 0
    /// Device-readable memory, in order.
    package let readable: GuestVector
    /// Device-writable memory, in order; in a chain it follows all that is readable.
    package let writable: GuestVector

    fileprivate init(arena: GuestVectorArena) {
        readable = arena.makeVector()
        writable = arena.makeVector()
    }

    func begin(_ head: UInt16) {
        currentHead = head
        readable.removeAll()
        writable.removeAll()
    }

    /// Names the request anew: a packed chain's id comes with its last descriptor.
    func rename(_ head: UInt16) { currentHead = head }

    /// Adds the memory that a descriptor names.
    func add(_ entry: Descriptor, in memory: GuestMemory) throws(GuestFault) {
        let isAdded: Bool
        if entry.has(Descriptor.Flag.write) {
            isAdded = writable.append(entry.address, count: entry.length, in: memory)
        } else {
            guard writable.count == 0 else {
                throw GuestFault("readable descriptor after a writable one", entry.address.rawValue)
            }
            isAdded = readable.append(entry.address, count: entry.length, in: memory)
        }
        guard isAdded else { throw GuestFault("descriptor outside memory", entry.address.rawValue) }
    }

    /// `count` chains for a queue whose chains have at most `size` descriptors.
    static func make(_ count: Int, size: UInt16) throws(HostError) -> [DescriptorChain] {
        let arena = try GuestVectorArena(vectors: 2 * count, capacity: Int(size))
        return (0..<count).map { _ in DescriptorChain(arena: arena) }
    }
}
