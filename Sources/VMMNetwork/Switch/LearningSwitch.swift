/// Where an Ethernet switch sends a frame (IEEE 802.1D): it learns which addresses are behind a
/// port from the frames that come in there. Knows no sockets and no clock; frames of one flow have
/// one way, so whoever keeps the order in which they were decided keeps it for each flow.
package struct LearningSwitch {
    /// An Ethernet address as a number, first byte on the wire highest.
    package typealias Address = UInt64

    /// What becomes of a frame.
    package enum Decision: Equatable, Sendable {
        case drop
        /// To one port.
        case forward(Int)
        /// To all ports but the one that it came from.
        case flood
    }

    private struct Place {
        var port: Int
        var lastSeen: UInt64
    }

    /// As long as 802.1D says by default: 300 s.
    package static let ageNanoseconds: UInt64 = 300_000_000_000
    /// Addresses of one port: a guest that makes them up crowds out its own only.
    package static let mostAddressesPerPort = 1024
    /// How exactly an address's age is known: a busy one is written down once a second, and not
    /// with each frame.
    private static let refreshNanoseconds: UInt64 = 1_000_000_000
    /// The least time between two searches of a full port for old addresses.
    private static let sweepNanoseconds: UInt64 = 1_000_000_000

    private var table: [Address: Place] = [:]
    /// Of each port those that are behind it: a port's sweep and its end cost what it has itself.
    private var addresses: [Set<Address>]
    private var lastSweep: [UInt64?]

    /// For ports from 0 up to `portLimit`.
    package init(portLimit: Int) {
        addresses = Array(repeating: [], count: portLimit)
        lastSweep = Array(repeating: nil, count: portLimit)
    }

    /// How many addresses are known, old ones included.
    package var addressCount: Int { table.count }

    /// Decides on one frame that came from `port` at `now` (nanoseconds, never going back), and
    /// learns from it. The one place that does: faults of the network go in here.
    package mutating func decide(
        destination: Address, source: Address, from port: Int, now: UInt64
    ) -> Decision {
        guard addresses.indices.contains(port), !Self.isGroup(source) else { return .drop }
        learn(source, at: port, now)
        if Self.isGroup(destination) { return Self.staysOnLink(destination) ? .drop : .flood }
        guard let place = table[destination], now &- place.lastSeen < Self.ageNanoseconds else {
            return .flood
        }
        return place.port == port ? .drop : .forward(place.port)
    }

    /// Forgets what was behind a port that is gone.
    package mutating func remove(port: Int) {
        guard addresses.indices.contains(port) else { return }
        for address in addresses[port] { table[address] = nil }
        addresses[port] = []
        lastSweep[port] = nil
    }

    private mutating func learn(_ address: Address, at port: Int, _ now: UInt64) {
        if let place = table[address], place.port == port {
            if now &- place.lastSeen >= Self.refreshNanoseconds {
                table.updateValue(Place(port: port, lastSeen: now), forKey: address)
            }
            return
        }
        let hasRoom = addresses[port].count < Self.mostAddressesPerPort || sweep(port, now)
        guard hasRoom else { return }
        // An address that was elsewhere has moved.
        if let before = table.updateValue(Place(port: port, lastSeen: now), forKey: address) {
            addresses[before.port].remove(address)
        }
        addresses[port].insert(address)
    }

    /// Makes room at a full port by its old addresses; false when there are none.
    private mutating func sweep(_ port: Int, _ now: UInt64) -> Bool {
        if let last = lastSweep[port], now &- last < Self.sweepNanoseconds { return false }
        lastSweep[port] = now
        let old = addresses[port].filter { address in
            table[address].map { now &- $0.lastSeen >= Self.ageNanoseconds } ?? true
        }
        for address in old { table[address] = nil }
        addresses[port].subtract(old)
        return !old.isEmpty
    }

    // MARK: addresses

    /// The address in six bytes from `start`, which are there.
    package static func address(_ bytes: [UInt8], at start: Int) -> Address {
        var address: Address = 0
        for index in start..<start + 6 { address = address << 8 | Address(bytes[index]) }
        return address
    }

    private static func isGroup(_ address: Address) -> Bool { address >> 40 & 1 == 1 }

    /// 01-80-C2-00-00-00 to -0F: between neighbours only (802.1D, table 7-10).
    private static func staysOnLink(_ address: Address) -> Bool { address >> 4 == 0x0180_c200_000 }
}
