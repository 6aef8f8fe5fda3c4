import Testing
import VMMHost

@testable import VMMNetwork

@Suite("Passt")
struct PasstTests {
    @Test("a forward names the transport, the host's port and the guest's")
    func forwards() throws {
        let plain = try #require(Passt.Forward("tcp:8080:80"))
        let bound = try #require(Passt.Forward("udp:127.0.0.1:53:5353"))
        #expect(plain.transport == .tcp && plain.hostPort == 8080 && plain.guestPort == 80)
        #expect(bound.address == "127.0.0.1" && bound.transport == .udp)
    }

    @Test(
        "anything else is none",
        arguments: [
            "", "tcp", "tcp:1", "tcp:0:1", "tcp:1:0", "tcp:1:65536", "sctp:1:2", "tcp:a:b:1:2",
            "tcp:localhost:1:2", "tcp:-1:2", "tcp::1:2", "udp:1:2:",
        ])
    func bad(text: String) {
        #expect(Passt.Forward(text) == nil)
    }

    @Test("passt is told its socket, the MTU, and each port")
    func arguments() throws {
        let socket = try UnixSocket.streamPair().0
        let forwards = ["tcp:8080:80", "udp:127.0.0.1:53:5353", "tcp:2222:22"]
            .compactMap { Passt.Forward($0) }
        #expect(
            Passt.arguments(socket, forwards, 1500) == [
                "--foreground", "--fd", "\(socket.rawValue)", "--mtu", "1500", "--tcp-ports",
                "8080:80", "--tcp-ports", "2222:22", "--udp-ports", "127.0.0.1/53:5353",
            ])
    }
}
