import Foundation
import Testing
import VMMBase
import VMMHost
import VMMNetwork
import VMMTestSupport

@testable import VMMDevices

@Suite("NetworkBackendOptions")
struct NetworkBackendOptionsTests {
    @Test(
        "sound values are no problem",
        arguments: [
            "backend=tap", "backend=socket,path=/tmp/s", "backend=user",
            "backend=socket,path=/tmp/s,mode=server,framing=stream,mac=02:00:00:00:00:01",
            "backend=socket,path=/tmp/s,framing=dgram,local_path=/tmp/t",
            "backend=socket,path=/tmp/s,vnet_hdr=on,offload_tso=on,offload_uso=on",
            "backend=socket,path=/tmp/s,framing=dgram,local_path=/tmp/t,vnet_hdr=on",
            "backend=user,forward=[tcp:8080:80,udp:53:53,tcp:127.0.0.1:81:80]",
        ])
    func good(text: String) {
        #expect(problems(text, as: NetworkSpec.self) == [])
    }

    @Test(
        "mistakes are named",
        arguments: [
            ("backend=socket", "--net path: a socket needs one: path=<file>"),
            (
                "backend=socket,path=/s,framing=dgram",
                "--net local_path: a socket needs one: local_path=<file>"
            ),
            ("path=/s", "--net path: goes with backend=socket only"),
            ("backend=user,path=/s", "--net path: goes with backend=socket only"),
            ("backend=user,tap=t", "--net tap: goes with backend=tap only"),
            ("backend=user,offload_tso=on", "--net offload_tso: goes with backend=tap only"),
            (
                "backend=socket,path=/s,offload_tso=on",
                "--net offload_tso: goes with vnet_hdr=on only"
            ),
            ("vnet_hdr=on", "--net vnet_hdr: goes with backend=socket only"),
            ("backend=user,vnet_hdr=on", "--net vnet_hdr: goes with backend=socket only"),
            (
                "backend=socket,path=/s,framing=dgram,local_path=/t,mode=server",
                "--net mode: goes with framing=stream only"
            ),
            ("forward=[tcp:1:1]", "--net forward: goes with backend=user only"),
            (
                "backend=user,forward=[tcp:1:1,tcp:1:2]",
                "--net forward 'tcp:1:2': the host's port is given twice"
            ),
            (
                "backend=user,forward=[x]",
                "--net forward 'x': expected tcp:HOSTPORT:GUESTPORT or udp:..., with ports from 1"
                    + " to 65535 (and the host's IPv4 address before them if you like)"
            ),
        ])
    func mistakes(text: String, expected: String) {
        #expect(problems(text, as: NetworkSpec.self) == [expected])
    }

    @Test("a path that no socket can have is told before anything is opened")
    func longPath() {
        let path = "/" + String(repeating: "x", count: 107)
        #expect(
            problems("backend=socket,path=\(path)", as: NetworkSpec.self) == [
                "--net path: the socket path '\(path)' is too long: 108 bytes, and at most 107 are"
                    + " allowed"
            ])
    }

    @Test("an unknown backend is told with those that there are")
    func unknown() {
        #expect(throws: ConfigurationProblem.self) {
            try parse("backend=tun", as: NetworkSpec.self).get()
        }
    }

    /// What the user reads when the device cannot be made.
    private func failure(_ text: String) throws -> String {
        let spec = try parse(text, as: NetworkSpec.self).get()
        let context = DeviceContext(id: "n", loop: try EventLoop(), clock: ManualClock())
        do {
            _ = try spec.build(context)
            return ""
        } catch {
            return "\(error)"
        }
    }

    @Test(
        "a socket offers offloads when frames have headers on it, within the switches",
        arguments: [
            ("", 0), (",vnet_hdr=off", 0), (",vnet_hdr=on", NetworkBackendOptionsTests.all),
            (",vnet_hdr=on,offload_csum=off", 0),
            (",vnet_hdr=on,offload_tso=off,offload_ufo=off,offload_uso=off", 0b111),
        ] as [(String, UInt64)])
    func offers(keys: String, expected: UInt64) throws {
        let path = NSTemporaryDirectory() + "swiftlet-\(UUID().uuidString.prefix(8))"
        let spec = try parse(
            "backend=socket,mode=server,path=\(path)" + keys, as: NetworkSpec.self
        ).get()
        let context = DeviceContext(id: "n", loop: try EventLoop(), clock: ManualClock())
        guard case .virtIO(let device, _) = try spec.build(context) else {
            Issue.record("no virtio device")
            return
        }
        #expect(device.offeredFeatures & Self.all == expected)
        device.finish()
    }

    /// Checksums and the switching of offloads; TSO, ECN and UFO both ways; USO both ways (VirtIO
    /// 1.3, 5.1.3).
    private static let all: UInt64 = 0b111 | 0b1111 << 7 | 0b1111 << 11 | 0b111 << 54

    @Test("a server that is not there, a path in use and a file in the way are a sentence each")
    func hostMistakes() throws {
        let path = NSTemporaryDirectory() + "swiftlet-\(UUID().uuidString.prefix(8))"
        #expect(
            try failure("backend=socket,path=\(path)")
                == "--net path: cannot connect to '\(path)': No such file or directory")
        let listener = try UnixListener(path: path)
        #expect(
            try failure("backend=socket,mode=server,path=\(path)")
                == "--net path: the socket '\(path)' is in use")
        #expect(
            try failure("backend=socket,framing=dgram,path=/p,local_path=\(path)")
                == "--net local_path: the socket '\(path)' is in use")
        #expect(try failure("backend=socket,path=\(path)") == "")
        listener.removeFile()
        try Data().write(to: URL(filePath: path))
        #expect(
            try failure("backend=socket,mode=server,path=\(path)")
                == "--net path: '\(path)' exists and is not a socket")
        try FileManager.default.removeItem(atPath: path)
    }
}
