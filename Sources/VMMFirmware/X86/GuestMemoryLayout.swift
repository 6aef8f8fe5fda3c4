import VMMBase

/// Where an x86-64 guest's RAM, holes and boot structures lie (the map of
/// `reference/cloud-hypervisor.md` 4.1). RAM fills [0, 3 GiB) and goes on at 4 GiB.
package struct GuestMemoryLayout: Hashable, Sendable {
    /// The size of all RAM in bytes, a multiple of 4 KiB.
    package let ramBytes: UInt64
    /// The width of a guest-physical address: all that is in the layout lies below 2 to this.
    package let physicalAddressBits: Int
    /// RAM in ascending order: one range, or two when there is more than 3 GiB.
    package let ramRanges: [GuestRange]
    /// The window for 64-bit PCI BARs: from RAM's end, rounded up to 4 GiB, to `platformWindow`.
    package let mmio64Window: GuestRange
    /// One MiB near the top of the address space for the platform's own registers.
    package let platformWindow: GuestRange

    /// The kernel's load floor of 1 MiB and one page more, below which nothing can start.
    private static let minimumRAM: UInt64 = (1 << 20) + pageBytes
    /// Below 36 bits no x86-64 CPU exists; above 52 the page tables end.
    private static let addressBits = 36...52
    private static let fourGiB: UInt64 = 1 << 32
    /// Where the 64-bit window begins and ends, so that large BARs find aligned places.
    static let mmio64Alignment: UInt64 = fourGiB
    private static let platformBytes: UInt64 = 1 << 20
    /// Kept free at the very top of the address space.
    private static let topGuardBytes: UInt64 = 64 << 10

    /// Lays out `ramBytes` of RAM for a guest whose CPUID says `physicalAddressBits`.
    package init(ramBytes: UInt64, physicalAddressBits: Int) throws(GuestLayoutError) {
        guard Self.addressBits.contains(physicalAddressBits) else {
            throw .addressBits(physicalAddressBits, allowed: Self.addressBits)
        }
        guard ramBytes % Self.pageBytes == 0 else {
            throw .ramNotPageAligned(bytes: ramBytes)
        }
        guard ramBytes >= Self.minimumRAM else {
            throw .ramTooSmall(bytes: ramBytes, minimum: Self.minimumRAM)
        }
        let platformStart =
            (UInt64(1) << physicalAddressBits) - Self.topGuardBytes - Self.platformBytes
        let holeStart = Self.mmio32Hole.start.rawValue
        // Nearly 4 GiB at least is left to the 64-bit window.
        let ramTop = platformStart / Self.mmio64Alignment * Self.mmio64Alignment
        let maximum = holeStart + (ramTop - Self.fourGiB)
        guard ramBytes <= maximum else {
            throw .ramTooLarge(bytes: ramBytes, maximum: maximum, bits: physicalAddressBits)
        }
        let low = min(ramBytes, holeStart)
        let high = ramBytes - low
        let highEnd = Self.fourGiB + high
        let windowStart = (highEnd + Self.mmio64Alignment - 1) & ~(Self.mmio64Alignment - 1)
        self.ramBytes = ramBytes
        self.physicalAddressBits = physicalAddressBits
        ramRanges = [
            GuestRange(start: GuestAddress(0), count: low),
            GuestRange(start: GuestAddress(Self.fourGiB), count: high),
        ].compactMap(\.self)
        mmio64Window = Self.range(windowStart, platformStart - windowStart)
        platformWindow = Self.range(platformStart, Self.platformBytes)
    }

    /// The exclusive end of the RAM below the 32-bit hole.
    package var lowRAMEnd: GuestAddress {
        GuestAddress(min(ramBytes, Self.mmio32Hole.start.rawValue))
    }

    /// The first address after all RAM.
    package var ramEnd: GuestAddress {
        let hole = Self.mmio32Hole.start.rawValue
        return GuestAddress(ramBytes > hole ? Self.fourGiB + (ramBytes - hole) : ramBytes)
    }

    /// The page of `platformWindow` that holds a platform device's registers.
    package func registers(of device: PlatformDevice) -> GuestAddress {
        let pagesBelowEnd = UInt64(device.rawValue) + 1
        let end = platformWindow.start.rawValue + platformWindow.count
        return GuestAddress(end - pagesBelowEnd * Self.pageBytes)
    }

    /// The memory map that the guest gets, by PVH or by the zero page, in ascending order.
    package var memoryMap: [MemoryMapEntry] {
        let low = Self.range(0, Self.rsdp.rawValue)
        let floor = Self.kernelFloor.rawValue
        let middle = Self.range(floor, lowRAMEnd.rawValue - floor)
        let ram = [low, middle] + ramRanges.dropFirst()
        var entries = ram.map { MemoryMapEntry(range: $0, kind: .ram) }
        entries.insert(MemoryMapEntry(range: Self.ecam, kind: .reserved), at: 2)
        return entries
    }

    /// A constant range; the caller knows that it is not empty and does not pass the end.
    static func range(_ start: UInt64, _ count: UInt64) -> GuestRange {
        guard let range = GuestRange(start: GuestAddress(start), count: count) else {
            preconditionFailure("a layout's range is not empty and lies in the address space")
        }
        return range
    }
}

/// The platform devices with registers in memory, each with a page of its own. The order is part
/// of the machine's contract with snapshots: only append.
package enum PlatformDevice: Int, Sendable, CaseIterable {
    /// The memory hot-plug controller (24 bytes).
    case memoryHotplug
    /// The PCI hot-plug controller (16 bytes).
    case pciHotplug
    /// The CPU hot-plug controller (12 bytes).
    case cpuHotplug
    /// The generic event device's pending events (1 byte, cleared by reading).
    case genericEvent
}

/// One range of the guest's memory map and what it is (ACPI 6.5, section 15).
package struct MemoryMapEntry: Hashable, Sendable {
    /// The E820 and PVH type numbers.
    package enum Kind: UInt32, Sendable {
        /// Memory that the guest may use freely.
        case ram = 1
        /// Addresses that the guest must not use or give to a device.
        case reserved = 2
    }

    /// The addresses.
    package let range: GuestRange
    /// What they are.
    package let kind: Kind
}
