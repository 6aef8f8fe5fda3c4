import Foundation
import Testing
import VMMHost

@Suite("ChildProcess")
struct ChildProcessTests {
    private func start(
        _ script: String, keeping: [FileDescriptor] = []
    ) throws -> (ChildProcess, FileDescriptor) {
        let output = try ChildProcess.makeOutput()
        let child = try ChildProcess(
            "/bin/sh", ["-c", script], keeping: keeping, output: output.far)
        return (child, output.near)
    }

    /// All that the child prints until it and its own children are gone.
    private func text(_ output: FileDescriptor) -> String {
        var bytes: [UInt8] = []
        while output.isReady(.readable, waitingMilliseconds: 10_000),
            case .moved = output.read(into: &bytes, limit: 4096)
        {}
        return String(decoding: bytes, as: UTF8.self)
    }

    @Test("a child speaks to us, and its end is an event with a status")
    func ends() throws {
        let (child, output) = try start("echo out; echo err >&2; read word || exit 7")
        #expect(text(output) == "out\nerr\n")
        #expect(child.descriptor.isReady(.readable, waitingMilliseconds: 10_000))
        #expect(child.poll() == .exited(7))
        #expect(child.poll() == .exited(7))
    }

    @Test("it has the descriptors that it was given, and no others of ours")
    func descriptors() throws {
        let (near, far) = try UnixSocket.streamPair()
        let (child, output) = try start("ls /proc/self/fd", keeping: [far])
        let open = Set(text(output).split(separator: "\n").compactMap { Int32($0) })
        // What the tests themselves were started with is none of ours.
        #expect(open.isSuperset(of: [0, 1, 2, far.rawValue]))
        #expect(open.isDisjoint(with: [near.rawValue, output.rawValue]))
        _ = child
    }

    @Test("no signal is blocked or ignored, and it leads a session")
    func signals() throws {
        ProcessSignals.ignoreBrokenPipes()
        let (child, output) = try start(
            "grep -E '^Sig(Blk|Ign)' /proc/self/status; cut -d' ' -f6 /proc/$$/stat")
        let text = text(output)
        #expect(text.contains("SigBlk:\t0000000000000000"))
        #expect(text.contains("SigIgn:\t0000000000000000"))
        #expect(text.hasSuffix("\n\(child.identifier)\n"))
    }

    @Test("it ends with the object, and leaves nothing behind")
    func endsWithUs() throws {
        var started: (ChildProcess, FileDescriptor)? = try start("echo up; exec sleep 1000")
        let identifier = try #require(started?.0.identifier)
        #expect(started?.0.poll() == nil)
        #expect(kill(identifier, 0) == 0)
        started = nil
        #expect(kill(identifier, 0) == -1 && errno == ESRCH)
    }

    @Test("it is killed with the thread that started it")
    func endsWithThread() throws {
        let output = try ChildProcess.makeOutput()
        let box = LoopBound<ChildProcess?>(nil)
        let thread = try HostThread(name: "starter", role: .tool) {
            box.withValue { child in
                child = try? ChildProcess(
                    "/bin/sleep", ["1000"], output: output.far)
            }
        }
        thread.join()
        let child = try #require(box.withValue { $0 })
        #expect(child.descriptor.isReady(.readable, waitingMilliseconds: 10_000))
        #expect(child.poll() == .killed(SIGKILL))
    }

    @Test("a program that is not there is an error that names it, with no child")
    func missing() throws {
        let output = try ChildProcess.makeOutput()
        let error = #expect(throws: HostError.self) {
            try ChildProcess("/nonexistent/passt", [], output: output.far)
        }
        #expect(
            error?.description == "cannot start '/nonexistent/passt': No such file or directory")
        #expect(ChildProcess.find("no-such-program-here") == nil)
        #expect(ChildProcess.find("sh") != nil)
    }
}
