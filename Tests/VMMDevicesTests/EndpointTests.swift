import Foundation
import Testing
import VMMHost
import VMMTestSupport

@testable import VMMDevices

@Suite("Endpoints", .serialized)
struct EndpointTests {
    let directory: TemporaryDirectory
    let fixture: LoopFixture
    let inbox: Inbox

    init() throws {
        directory = try TemporaryDirectory()
        fixture = try LoopFixture()
        inbox = try Inbox()
    }

    private func start(_ channel: any ByteChannel) throws {
        try fixture.sync { [loop = fixture.loop, inbox] in
            try? channel.start(on: loop) { inbox.append($0) }
        }
    }

    private func message(_ body: () throws -> Void) -> String {
        do {
            try body()
            return ""
        } catch {
            return "\(error)"
        }
    }

    // MARK: file

    @Test("a file is emptied when the guest starts, not before, and holds all output at the end")
    func file() throws {
        let path = directory.file("log")
        try "old".write(toFile: path, atomically: false, encoding: .utf8)
        let channel = try FileChannel(path: path)
        channel.send(Array("before ".utf8))
        #expect(try String(contentsOfFile: path, encoding: .utf8) == "old")
        channel.guestStarts()
        try start(channel)
        for byte in "after".utf8 { channel.send(byte) }
        fixture.stop()
        channel.finish()
        #expect(try String(contentsOfFile: path, encoding: .utf8) == "before after")
    }

    @Test("a file that cannot be made is an error that names it")
    func badFile() {
        let text = message { _ = try FileChannel(path: "/nonexistent/log") }
        #expect(text == "console file: cannot open '/nonexistent/log': No such file or directory")
        fixture.stop()
    }

    // MARK: pty

    @Test("a pseudo-terminal passes bytes both ways, raw, and keeps what came before its reader")
    func pty() throws {
        let channel = try PseudoTerminalChannel()
        try start(channel)
        channel.send(Array("login:\n".utf8))
        try fixture.sync()
        let user = try FileDescriptor.open(channel.path, [.readWrite, .noControllingTerminal])
        #expect(user.readFully(7) == Array("login:\n".utf8))
        user.writeAll("root\r\u{3}")
        #expect(inbox.wait(for: 6) == Array("root\r\u{3}".utf8))
        fixture.stop()
        channel.finish()
    }

    @Test("much output without a reader blocks nobody, and a reader gets the end of it")
    func ptyWithoutReader() throws {
        let channel = try PseudoTerminalChannel()
        try start(channel)
        let piece = [UInt8](repeating: 0x2e, count: 64 << 10)
        for _ in 0..<40 {
            channel.send(piece)
            try fixture.sync()
        }
        channel.send(Array("END".utf8))
        let user = try FileDescriptor.open(
            channel.path, [.readWrite, .noControllingTerminal, .nonBlocking])
        var tail: [UInt8] = []
        while !tail.suffix(3).elementsEqual("END".utf8) {
            let next = user.readFully(1)
            #expect(!next.isEmpty)
            if next.isEmpty { break }
            tail.append(contentsOf: next)
            _ = user.read(into: &tail, limit: 4096)
        }
        #expect(tail.count >= 1 << 20)
        fixture.stop()
        channel.finish()
    }

    @Test("a reader may leave and come back")
    func ptyReattach() throws {
        let channel = try PseudoTerminalChannel()
        try start(channel)
        for text in ["one", "two"] {
            let user = try FileDescriptor.open(channel.path, [.readWrite, .noControllingTerminal])
            channel.send(Array(text.utf8))
            #expect(user.readFully(3) == Array(text.utf8))
        }
        fixture.stop()
        channel.finish()
    }

    // MARK: socket

    @Test("a socket's client gets what was written before it came, and is heard")
    func socket() throws {
        let channel = try SocketChannel(path: directory.file("s"))
        try start(channel)
        channel.send(Array("early".utf8))
        let client = try UnixListener.connect(to: channel.path)
        #expect(client.readFully(5) == Array("early".utf8))
        client.writeAll("hello")
        #expect(inbox.wait(for: 5) == Array("hello".utf8))
        fixture.stop()
        channel.finish()
    }

    @Test("a new client replaces the one before, who sees the end")
    func replacement() throws {
        let channel = try SocketChannel(path: directory.file("s"))
        try start(channel)
        let first = try UnixListener.connect(to: channel.path)
        channel.send(1)
        #expect(first.readFully(1) == [1])
        let second = try UnixListener.connect(to: channel.path)
        #expect(first.readFully(1).isEmpty)
        channel.send(2)
        #expect(second.readFully(1) == [2])
        fixture.stop()
        channel.finish()
    }

    @Test("a client may leave, and the next one gets what came meanwhile")
    func reconnection() throws {
        let channel = try SocketChannel(path: directory.file("s"))
        try start(channel)
        do {
            let first = try UnixListener.connect(to: channel.path)
            first.writeAll("x")
            _ = inbox.wait(for: 1)
        }
        try fixture.sync()
        try fixture.sync()
        channel.send(Array("meanwhile".utf8))
        let second = try UnixListener.connect(to: channel.path)
        #expect(second.readFully(9) == Array("meanwhile".utf8))
        fixture.stop()
        channel.finish()
    }

    @Test("without a client the last MiB is kept")
    func socketBound() throws {
        let channel = try SocketChannel(path: directory.file("s"))
        try start(channel)
        channel.send([7])
        channel.send([UInt8](repeating: 8, count: 1 << 20))
        let client = try UnixListener.connect(to: channel.path)
        let received = client.readFully(1 << 20)
        #expect(received.count == 1 << 20)
        #expect(received.first == 8)
        fixture.stop()
        channel.finish()
    }

    @Test("the socket's file goes at the end, but not somebody else's in its place")
    func removal() throws {
        let path = directory.file("s")
        let channel = try SocketChannel(path: path)
        fixture.stop()
        channel.finish()
        #expect(!FileManager.default.fileExists(atPath: path))
        #expect(FileManager.default.createFile(atPath: path, contents: nil))
        channel.finish()
        #expect(FileManager.default.fileExists(atPath: path))
    }

    @Test("a socket that somebody listens on is an error, one that nobody does is replaced")
    func existingSocket() throws {
        let path = directory.file("s")
        do {
            let living = try UnixListener(path: path)
            #expect(
                message { _ = try SocketChannel(path: path) }
                    == "console socket: the socket '\(path)' is in use")
            _ = living.path
        }
        #expect(FileManager.default.fileExists(atPath: path))
        let channel = try SocketChannel(path: path)
        fixture.stop()
        channel.finish()
    }

    @Test("a file that is no socket, and a path that is too long, are errors in one sentence")
    func badSocketPaths() throws {
        let path = directory.file("plain")
        #expect(FileManager.default.createFile(atPath: path, contents: nil))
        #expect(
            message { _ = try SocketChannel(path: path) }
                == "console socket: '\(path)' exists and is not a socket")
        let long = "/tmp/" + String(repeating: "x", count: 103)
        #expect(
            message { _ = try SocketChannel(path: long) }
                == "console socket: the socket path '\(long)' is too long: 108 bytes, and at most"
                + " 107 are allowed")
        fixture.stop()
    }

    // MARK: input

    @Test("while input is paused nothing is delivered, and nothing is lost")
    func pause() throws {
        let channel = try PseudoTerminalChannel()
        try start(channel)
        channel.setInputPaused(true)
        // A read that was under way may still deliver; it has ended now.
        try fixture.sync()
        let user = try FileDescriptor.open(channel.path, [.readWrite, .noControllingTerminal])
        user.writeAll("abc")
        try fixture.sync()
        try fixture.sync()
        #expect(inbox.count == 0)
        channel.setInputPaused(false)
        #expect(inbox.wait(for: 3) == Array("abc".utf8))
        fixture.stop()
        channel.finish()
    }

    @Test("the null channel takes everything and gives nothing")
    func null() throws {
        let channel = try ConsoleEndpoint.off.makeChannel()
        try start(channel)
        channel.send([1, 2, 3])
        channel.setInputPaused(true)
        fixture.stop()
        channel.finish()
        #expect(channel.size == nil)
    }
}
