import Testing
import VMMHost

@Suite("IPAddress")
struct IPAddressTests {
    @Test("an IPv4 address has its four bytes in network order")
    func v4() throws {
        let address = try #require(IPAddress("192.168.0.1"))
        #expect(address.family == .v4)
        #expect(address.bytes == [192, 168, 0, 1])
    }

    @Test("an IPv6 address has its sixteen bytes in network order")
    func v6() throws {
        let address = try #require(IPAddress("fd00::1"))
        #expect(address.family == .v6)
        #expect(address.bytes == [0xfd] + Array(repeating: 0, count: 14) + [1])
    }

    @Test(
        "anything else is no address",
        arguments: [
            "", " ", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1.2.3.4/24", "01.2.3.4x", "::g", ":::",
            "localhost", "1.2.3.4 ", "0x1.2.3.4", "fd00::1%eth0",
        ])
    func bad(text: String) {
        #expect(IPAddress(text) == nil)
    }

    @Test(
        "a netmask has a prefix length",
        arguments: zip(
            [
                "0.0.0.0", "128.0.0.0", "255.255.255.0", "255.255.254.0", "255.255.255.255",
                "ffff:ffff:ffff:ffff::", "ffff:fffe::", "::",
            ], [0, 1, 24, 23, 32, 64, 31, 0]))
    func prefixLength(mask: String, length: Int) {
        #expect(IPAddress(mask)?.prefixLength == length)
    }

    @Test(
        "an address with bits behind a gap is no netmask",
        arguments: ["255.0.255.0", "0.0.0.1", "255.255.253.0", "127.0.0.0", "ffff::1"])
    func noMask(text: String) throws {
        #expect(try #require(IPAddress(text)).prefixLength == nil)
    }
}
