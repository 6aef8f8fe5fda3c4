import Testing
import VMMBase

@testable import VMMFirmware

@Suite("SMBIOS")
struct SMBIOSTests {
    private struct Structure {
        let type: UInt8
        let fields: [UInt8]
        let strings: [String]
    }

    /// Walks the structures the way that `dmidecode` does.
    private func structures(_ blob: GuestBlob) -> [Structure] {
        var rest = blob.bytes[32...]
        var found: [Structure] = []
        while let type = rest.first {
            let length = Int(rest[rest.startIndex + 1])
            let fields = Array(rest.prefix(length))
            rest = rest.dropFirst(length)
            var strings: [String] = []
            while rest.first != 0 {
                strings.append(String(decoding: rest.prefix { $0 != 0 }, as: UTF8.self))
                rest = rest.drop { $0 != 0 }.dropFirst()
            }
            rest = rest.dropFirst(strings.isEmpty ? 2 : 1)
            found.append(Structure(type: type, fields: fields, strings: strings))
        }
        return found
    }

    @Test("the entry point is at 0xf0000 and covers the structures")
    func entryPoint() throws {
        let blob = try SMBIOS().build()
        #expect(blob.address == GuestAddress(0xf0000))
        #expect(blob.bytes.ascii(0..<5) == "_SM3_")
        #expect(Array(blob.bytes[0..<24]).sum == 0)
        #expect(Array(blob.bytes[6..<12]) == [24, 3, 2, 0, 1, 0])
        #expect(Int(blob.bytes.little(12) as UInt32) == blob.bytes.count - 32)
        #expect(blob.bytes.little(16) as UInt64 == 0xf0020)
    }

    @Test("a plain machine has types 0, 1 and 127")
    func plain() throws {
        let found = structures(try SMBIOS().build())
        #expect(found.map(\.type) == [0, 1, 127])
        #expect(found[0].strings == ["Swiftlet", "0"])
        #expect(found[0].fields.count == 26)
        #expect(found[0].fields[19] == 0x10)  // a virtual machine
        #expect(found[1].strings == ["Swiftlet", "Swiftlet"])
        #expect(found[1].fields.count == 27)
        #expect(found[1].fields[7] == 0)  // no serial number
        #expect(found[1].fields[8..<24].allSatisfy { $0 == 0 })
    }

    @Test("serial number, UUID, asset tag and OEM strings are there when given")
    func full() throws {
        let uuid = try #require(GUID("00112233-4455-6677-8899-aabbccddeeff"))
        let smbios = SMBIOS(
            serialNumber: "ab1", uuid: uuid, oemStrings: ["x=1", "y"], chassisAssetTag: "tag")
        let found = structures(try smbios.build())
        #expect(found.map(\.type) == [0, 1, 3, 11, 127])
        #expect(found[1].strings[Int(found[1].fields[7]) - 1] == "ab1")
        #expect(Array(found[1].fields[8..<24]) == uuid.bytes)
        #expect(found[2].strings[Int(found[2].fields[8]) - 1] == "tag")
        #expect(found[2].fields.count == 22)
        #expect(found[3].fields[4] == 2)
        #expect(found[3].strings == ["x=1", "y"])
    }

    @Test("a NUL or an empty string cannot break the table")
    func hostileStrings() throws {
        let smbios = SMBIOS(serialNumber: "a\0b", oemStrings: ["", "\0"], chassisAssetTag: "")
        let found = structures(try smbios.build())
        #expect(found.map(\.type) == [0, 1, 127])
        #expect(found[1].strings.last == "ab")
    }

    @Test("strings that do not fit are refused")
    func tooLong() {
        #expect(throws: FirmwareTableError.self) {
            try SMBIOS(serialNumber: String(repeating: "a", count: 0x10000)).build()
        }
        #expect {
            try SMBIOS(oemStrings: [String](repeating: "a", count: 256)).build()
        } throws: { error in
            "\(error)" == "256 OEM strings are too many; the most is 255"
        }
    }
}
