import Synchronization
import VMMBase

/// Something with registers. vCPU threads call it, several at once; it locks for itself.
package protocol BusDevice: AnyObject, Sendable {
    /// Reads `width` bytes at `offset` from the start of the device's range.
    func read(offset: UInt64, width: AccessWidth) -> UInt64
    func write(offset: UInt64, width: AccessWidth, value: UInt64)
}

/// One address space (ports, or memory-mapped registers): which device owns which range.
/// Any thread.
package final class Bus: Sendable {
    /// A range that overlaps one already taken, or passes the end of the space.
    package struct Conflict: Error, Equatable {
        package let base: UInt64
        package let count: UInt64
    }

    private struct Entry {
        let range: GuestRange
        let device: any BusDevice
    }

    /// Sorted by start; ranges never overlap.
    private let entries = Mutex<[Entry]>([])

    package init() {}

    /// Gives `device` the `count` bytes from `base` on.
    package func attach(_ device: any BusDevice, at base: UInt64, count: UInt64) throws(Conflict) {
        guard let range = GuestRange(start: GuestAddress(base), count: count) else {
            throw Conflict(base: base, count: count)
        }
        let placed = entries.withLock { entries in
            let index = Self.firstIndex(endingAtOrAfter: range.start.rawValue, in: entries)
            if index < entries.count, entries[index].range.overlaps(range) { return false }
            entries.insert(Entry(range: range, device: device), at: index)
            return true
        }
        guard placed else { throw Conflict(base: base, count: count) }
    }

    /// Takes away the range that starts at `base`; nothing happens when there is none.
    package func detach(at base: UInt64) {
        entries.withLock { entries in
            entries.removeAll { $0.range.start.rawValue == base }
        }
    }

    /// Reads a register; all ones where nothing answers, as on a real bus.
    package func read(address: UInt64, width: AccessWidth) -> UInt64 {
        guard let (device, offset) = find(address) else {
            Log.trace(
                "read of \(width.byteCount) bytes at \(GuestAddress(address)): nobody answers")
            return width.allOnes
        }
        return device.read(offset: offset, width: width)
    }

    /// Writes a register; ignored where nothing answers.
    package func write(address: UInt64, width: AccessWidth, value: UInt64) {
        guard let (device, offset) = find(address) else {
            Log.trace(
                "write of \(width.byteCount) bytes at \(GuestAddress(address)): nobody answers")
            return
        }
        device.write(offset: offset, width: width, value: value)
    }

    private func find(_ address: UInt64) -> (any BusDevice, UInt64)? {
        entries.withLock { entries in
            let index = Self.firstIndex(endingAtOrAfter: address, in: entries)
            guard index < entries.count,
                let offset = entries[index].range.offset(of: GuestAddress(address))
            else { return nil }
            return (entries[index].device, offset)
        }
    }

    /// Binary search: the first entry whose last address is not below `address`.
    private static func firstIndex(endingAtOrAfter address: UInt64, in entries: [Entry]) -> Int {
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].range.last.rawValue < address {
                low = middle + 1
            } else {
                high = middle
            }
        }
        return low
    }
}
