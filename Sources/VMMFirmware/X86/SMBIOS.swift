import VMMBase

/// The machine's identity as `dmidecode` and cloud-init see it (SMBIOS 3.2).
package struct SMBIOS: Hashable, Sendable {
    /// Type 1 serial number; nil for none.
    package var serialNumber: String?
    /// Type 1 UUID; nil for zeros, which mean "not set".
    package var uuid: GUID?
    /// Type 11 strings; an empty list leaves the structure out.
    package var oemStrings: [String]
    /// Type 3 asset tag; nil leaves the structure out.
    package var chassisAssetTag: String?

    /// NUL characters in the strings are dropped, because NUL ends a string in the table.
    package init(
        serialNumber: String? = nil, uuid: GUID? = nil, oemStrings: [String] = [],
        chassisAssetTag: String? = nil
    ) {
        self.serialNumber = serialNumber
        self.uuid = uuid
        self.oemStrings = oemStrings
        self.chassisAssetTag = chassisAssetTag
    }

    private static let entryPointBytes = 24
    private static let structuresOffset = 32

    /// The entry point at `GuestMemoryLayout.smbios` and the structures after it.
    package func build() throws(FirmwareTableError) -> GuestBlob {
        let limit = Int(UInt8.max)
        guard oemStrings.count <= limit else {
            throw .tooManyOEMStrings(count: oemStrings.count, limit: limit)
        }
        let structures = [bios, system, chassis, strings, Self.structure(127, handle: 4, [], [])]
            .compactMap(\.self).flatMap(\.self)
        var memory = ByteBuilder(entryPoint(structureBytes: structures.count))
        memory.align(to: Self.structuresOffset)
        memory.append(bytes: structures)
        let room = Int(
            GuestMemoryLayout.kernelFloor.rawValue - GuestMemoryLayout.smbios.rawValue)
        guard memory.count <= room else {
            throw .tooLarge(table: "SMBIOS structures", bytes: memory.count, limit: room)
        }
        return GuestBlob(address: GuestMemoryLayout.smbios, bytes: memory.bytes)
    }

    /// The 64-bit entry point (5.2.2).
    private func entryPoint(structureBytes: Int) -> [UInt8] {
        var entry = ByteBuilder()
        entry.append(ascii: "_SM3_", count: 5)
        entry.append(bytes: [0, UInt8(Self.entryPointBytes), 3, 2, 0, 1, 0])
        entry.append(UInt32(structureBytes))
        entry.append(GuestMemoryLayout.smbios.rawValue + UInt64(Self.structuresOffset))
        entry.patch(checksum(of: entry.bytes), at: 5)
        return entry.bytes
    }

    /// Type 0 (7.1): the monitor itself; says that this is a virtual machine.
    private var bios: [UInt8] {
        var fields = ByteBuilder([1, 2, 0, 0, 0, 0])  // vendor, version, address, date, size
        fields.append(UInt64(1 << 3))  // characteristics are not supported
        fields.append(bytes: [0, 1 << 4])  // virtual machine
        fields.append(bytes: [0xff, 0xff, 0xff, 0xff, 0, 0])  // no releases, no extended size
        return Self.structure(0, handle: 0, fields.bytes, ["Swiftlet", "0"])
    }

    /// Type 1 (7.2).
    private var system: [UInt8] {
        let serial = Self.usable(serialNumber)
        var fields = ByteBuilder([1, 2, 0, serial == nil ? 0 : 3])
        fields.append(bytes: uuid?.bytes ?? [UInt8](repeating: 0, count: 16))
        let powerSwitch: UInt8 = 6
        fields.append(bytes: [powerSwitch, 0, 0])
        return Self.structure(
            1, handle: 1, fields.bytes, ["Swiftlet", "Swiftlet"] + (serial.map { [$0] } ?? []))
    }

    /// Type 3 (7.4), only for its asset tag.
    private var chassis: [UInt8]? {
        guard let tag = Self.usable(chassisAssetTag) else { return nil }
        let unknown: UInt8 = 2
        var fields = ByteBuilder([1, unknown, 0, 0, 2])  // maker, type, version, serial, tag
        fields.append(bytes: [unknown, unknown, unknown, unknown])  // states and security
        fields.appendZeros(9)  // OEM, height, cords, no contained elements, SKU
        return Self.structure(3, handle: 2, fields.bytes, ["Swiftlet", tag])
    }

    /// Type 11 (7.12).
    private var strings: [UInt8]? {
        let strings = oemStrings.compactMap(Self.usable)
        guard !strings.isEmpty else { return nil }
        return Self.structure(
            11, handle: 3, [UInt8(truncatingIfNeeded: strings.count)], strings)
    }

    /// A string that the format can hold: not empty, without NUL.
    private static func usable(_ text: String?) -> String? {
        let kept = text.map {
            String($0.unicodeScalars.filter { $0.value != 0 }.map(Character.init))
        }
        return kept.flatMap { $0.isEmpty ? nil : $0 }
    }

    /// A structure (6.1.2): header, fields, strings that fields name by position, and two NULs.
    private static func structure(
        _ type: UInt8, handle: UInt16, _ fields: [UInt8], _ strings: [String]
    ) -> [UInt8] {
        var bytes = ByteBuilder([type, UInt8(4 + fields.count)])
        bytes.append(handle)
        bytes.append(bytes: fields)
        for string in strings {
            bytes.append(bytes: Array(string.utf8) + [0])
        }
        bytes.appendZeros(strings.isEmpty ? 2 : 1)
        return bytes.bytes
    }
}
