import Foundation
import Testing

@Suite("swiftlet switch")
struct SwitchCommandTests: ToolSuite {
    let directory: ToolDirectory

    init() throws {
        directory = try ToolDirectory()
    }

    /// Waits for what the switch does by itself soon, or never.
    private func waitUntil(_ what: String, _ holds: () throws -> Bool) throws {
        for _ in 0..<2000 {
            if try holds() { return }
            usleep(10_000)
        }
        Issue.record("\(what) did not come")
    }

    private func connect(_ path: String) throws -> FileHandle {
        let client = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(client, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        try #require(result == 0)
        // A frame that does not come fails the test.
        var limit = timeval(tv_sec: 60, tv_usec: 0)
        setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        return FileHandle(fileDescriptor: client, closeOnDealloc: true)
    }

    /// A frame behind its length.
    private func frame(to: UInt8, from: UInt8) -> Data {
        let bytes = Data([2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from]) + Data(repeating: 7, count: 48)
        return Data([0, 0, 0, UInt8(bytes.count)]) + bytes
    }

    @Test("it is confined, takes clients that come later, tells what it did and cleans up")
    func life() throws {
        let paths = ["first", "second"].map { file($0) }
        let process = Process()
        process.executableURL = URL(filePath: Self.tool)
        process.arguments = ["switch", "--socket", paths[0], "--socket", paths[1], "--json"]
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        defer { if process.isRunning { process.terminate() } }
        let status = "/proc/\(process.processIdentifier)/status"
        try waitUntil("the filter") {
            try String(contentsOfFile: status, encoding: .utf8).contains("Seccomp:\t2")
        }
        let text = try String(contentsOfFile: status, encoding: .utf8)
        #expect(text.contains("NoNewPrivs:\t1") && text.contains("CapBnd:\t0000000000000000"))

        // Both are known by their addresses before the last frame goes to one of them.
        let clients = try paths.map { try connect($0) }
        let exchange = [(0, frame(to: 0xff, from: 1)), (1, frame(to: 1, from: 2))]
        for (index, sent) in exchange {
            try clients[index].write(contentsOf: sent)
            let received = try clients[1 - index].read(upToCount: sent.count)
            #expect(received == sent)
        }
        kill(process.processIdentifier, SIGUSR1)
        var report = ""
        try waitUntil("the report") {
            report += String(decoding: output.fileHandleForReading.availableData, as: UTF8.self)
            return report.contains("\n]")
        }
        #expect(report.matches(of: /"received-frames" *: *1\b/).count == 2, "\(report)")
        process.terminate()
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)
        for path in paths { #expect(!FileManager.default.fileExists(atPath: path)) }
    }

    @Test("a word that --seccomp does not know is refused before anything is made")
    func words() throws {
        let refused = try run(
            Self.tool, ["switch", "--socket", file("socket"), "--seccomp", "perhaps"])
        #expect(refused.status != 0 && refused.error.contains("'perhaps'"))
        #expect(!FileManager.default.fileExists(atPath: file("socket")))
    }
}
