import Testing

@testable import VMMDevices

@Suite("ConnectLine")
struct ConnectLineTests {
    @Test(
        "a port is read in any case, with blanks, and with what follows left alone",
        arguments: [
            ("CONNECT 52\n", 52, 11), ("connect 52\nand more", 52, 11), ("CoNnEcT 0\n", 0, 10),
            ("CONNECT 4294967295\n", 4_294_967_295, 19), ("CONNECT  7\r\n", 7, 12),
            ("CONNECT 00000000000000000000007\n", 7, 32), ("connect\t8\n\n", 8, 10),
        ])
    func ports(text: String, port: UInt32, byteCount: Int) {
        #expect(ConnectLine(Array(text.utf8)) == .port(port, byteCount: byteCount))
    }

    @Test(
        "nonsense is refused",
        arguments: [
            "\n", "CONNECT\n", "CONNECT \n", "CONNECT 1 2\n", "CONNECT -1\n", "CONNECT +1\n",
            "CONNECT 0x1\n", "CONNECT 4294967296\n", "CONNECT 99999999999\n", "CONNECT1\n",
            "GET / HTTP/1.1\n", "CONNECTS 1\n", "\u{e9} 1\n", "CONNECT 1\0\n",
            "CONNECT 000000000000000000000007\n", "a line that is far too long for anybody",
        ])
    func nonsense(text: String) {
        #expect(ConnectLine(Array(text.utf8)) == .malformed)
    }

    @Test("a line without its end is waited for", arguments: ["", "C", "CONNECT 5", "nonsense"])
    func incomplete(text: String) {
        #expect(ConnectLine(Array(text.utf8)) == .incomplete)
    }
}
