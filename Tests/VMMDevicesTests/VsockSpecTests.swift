import Foundation
import Testing
import VMMBase
import VMMHost
import VMMTestSupport

@testable import VMMDevices

@Suite("VsockSpec")
struct VsockSpecTests {
    @Test("every key is understood")
    func everyKey() throws {
        let spec = try parse("cid=3,socket=/tmp/v,id=n,pci_device_id=31", as: VsockSpec.self).get()
        #expect(spec.cid == 3 && spec.socket == "/tmp/v")
        #expect(spec.id == "n" && spec.place.device == 31)
        #expect(spec.problems().isEmpty)
    }

    @Test("reserved addresses are named", arguments: ["0", "1", "2", "4294967295"])
    func reserved(cid: String) {
        #expect(
            problems("cid=\(cid),socket=v", as: VsockSpec.self) == [
                "--vsock cid '\(cid)': is reserved; a guest has one from 3 to 4294967294"
            ])
    }

    @Test("a path that no socket can have is named", arguments: [108, 500])
    func length(count: Int) {
        let path = String(repeating: "p", count: count)
        #expect(
            problems("cid=3,socket=\(path)", as: VsockSpec.self).contains {
                $0.hasSuffix("a socket's path has 1 to 107 bytes")
            })
    }

    @Test(
        "what is missing or no number is refused",
        arguments: ["cid=3", "socket=v", "cid=4294967296,socket=v", "cid=x,socket=v", "cid=-1"])
    func decoding(text: String) {
        #expect(throws: ConfigurationProblem.self) {
            try parse(text, as: VsockSpec.self).get()
        }
    }

    private static func build(_ path: String) throws -> BuiltDevice {
        let spec = try parse("cid=3,socket=\(path)", as: VsockSpec.self).get()
        return try spec.build(
            DeviceContext(id: "v", loop: EventLoop(), clock: ManualClock()))
    }

    private static func failure(_ path: String) -> String {
        do {
            _ = try build(path)
            return "no failure"
        } catch {
            return "\(error)"
        }
    }

    @Test("the socket's file is the owner's alone, and goes with the device")
    func file() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("v")
        guard case .virtIO(let device, _) = try Self.build(path) else { return }
        let attributes = try FileManager.default.attributesOfItem(atPath: path)
        #expect(attributes[.posixPermissions] as? Int == 0o600)
        device.finish()
        #expect(!FileManager.default.fileExists(atPath: path))
    }

    @Test("a file of somebody else stays", arguments: [true, false])
    func foreign(isSocket: Bool) throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("v")
        let other = isSocket ? try UnixListener(path: path) : nil
        if !isSocket { _ = FileManager.default.createFile(atPath: path, contents: nil) }
        let reason =
            isSocket ? "the socket '\(path)' is in use" : "'\(path)' exists and is not a socket"
        #expect(Self.failure(path) == "--vsock socket: \(reason)")
        #expect(FileManager.default.fileExists(atPath: path))
        other?.removeFile()
    }

    @Test("a missing directory is named")
    func noDirectory() {
        #expect(
            Self.failure("/nonexistent/v")
                == "--vsock socket: cannot listen on the socket '/nonexistent/v': "
                + "No such file or directory")
    }

    @Test(
        "connections leave descriptors for queues that start later, as many as the limit has",
        arguments: [
            (1, 1), (256, 128), (1024, 512), (2048, 1024), (20_000, 10_000), (40_000, 23_616),
            (524_288, 32_768),
        ])
    func connectionLimit(descriptors: Int, connections: Int) {
        #expect(VsockSpec.connectionLimit(descriptors: descriptors) == connections)
    }
}
