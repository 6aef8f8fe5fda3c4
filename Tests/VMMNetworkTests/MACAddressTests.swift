import Testing
import VMMNetwork

@Suite("MACAddress")
struct MACAddressTests {
    @Test("six pairs of hex digits are an address, in either case")
    func good() throws {
        let address = try #require(MACAddress("02:aB:00:Ff:10:9c"))
        #expect(address.bytes == [0x02, 0xab, 0x00, 0xff, 0x10, 0x9c])
        #expect(address.description == "02:ab:00:ff:10:9c")
        #expect(!address.isMulticast)
    }

    @Test(
        "anything else is none",
        arguments: [
            "", ":", ":::::", "02:11:22:33:44", "02:11:22:33:44:55:66", "2:11:22:33:44:55",
            "02:11:22:33:44:5g", "02-11-22-33-44-55", "021122334455", " 2:11:22:33:44:55",
            "+2:11:22:33:44:55", "-0:11:22:33:44:55", "02:11:22:33:44:55 ", "０2:11:22:33:44:55",
        ])
    func bad(text: String) {
        #expect(MACAddress(text) == nil)
    }

    @Test("the first byte's lowest bit makes it a group address")
    func multicast() throws {
        #expect(try #require(MACAddress("01:00:5e:00:00:01")).isMulticast)
        #expect(try #require(MACAddress("ff:ff:ff:ff:ff:ff")).isMulticast)
    }

    @Test("a random address is local, no group's, and another one each time")
    func random() {
        let addresses = (0..<32).map { _ in MACAddress.random() }
        #expect(addresses.allSatisfy { $0.bytes.count == 6 && $0.bytes[0] & 3 == 2 })
        // 46 random bits: two of 32 are the same once in 10^11 runs.
        #expect(Set(addresses.map(\.description)).count == 32)
    }
}
