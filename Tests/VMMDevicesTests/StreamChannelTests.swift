import Foundation
import Testing
import VMMBase
import VMMHost
import VMMTestSupport

@testable import VMMDevices

@Suite("StreamChannel", .serialized)
struct StreamChannelTests {
    let fixture: LoopFixture
    let inbox: Inbox
    let channel = StreamChannel("test", failure: .discardsOutput)

    init() throws {
        fixture = try LoopFixture()
        inbox = try Inbox()
    }

    private func start(input: ByteStream? = nil, output: ByteStream? = nil) throws {
        try fixture.sync { [channel, inbox, loop = fixture.loop] in
            channel.start(on: loop) { inbox.append($0) }
            channel.connect(StreamChannel.Connection(input: input, output: output))
        }
    }

    private func makePipe() throws -> (read: FileDescriptor, write: FileDescriptor) {
        var ends: [Int32] = [-1, -1]
        #expect(pipe(&ends) == 0)
        return (FileDescriptor(owning: ends[0]), FileDescriptor(owning: ends[1]))
    }

    @Test("input from a pipe ends with its writer")
    func pipeInput() throws {
        var (reader, writer): (FileDescriptor, FileDescriptor?) = try makePipe()
        try start(input: .shared(reader, .readOnly))
        writer?.writeAll("last words")
        writer = nil
        #expect(inbox.wait(for: 10) == Array("last words".utf8))
        try fixture.sync()
        fixture.stop()
        channel.finish(patience: 0)
        _ = reader.rawValue
        reader = .standardInput
    }

    @Test("input from a file and from /dev/null ends without events")
    func fileInput() throws {
        let directory = try TemporaryDirectory()
        let text = String(repeating: "0123456789", count: 1000)
        try text.write(toFile: directory.file("in"), atomically: false, encoding: .utf8)
        let file = try FileDescriptor.open(directory.file("in"), [.readOnly])
        try start(input: .shared(file, .readOnly))
        #expect(inbox.wait(for: 10_000) == Array(text.utf8))
        let null = try FileDescriptor.open("/dev/null", [.readOnly])
        try start(input: .shared(null, .readOnly))
        try fixture.sync()
        #expect(inbox.count == 10_000)
        fixture.stop()
        channel.finish(patience: 0)
    }

    @Test("a pipe that nobody empties does not block, and the flags of its open file stay")
    func slowPipe() throws {
        let (reader, writer) = try makePipe()
        try start(output: .shared(writer, .writeOnly))
        // Twice what a pipe holds by default.
        let text = [UInt8](repeating: 0x61, count: 128 << 10)
        channel.send(text)
        try fixture.sync()
        #expect(fcntl(writer.rawValue, F_GETFL) & O_NONBLOCK == 0)
        #expect(reader.readFully(128 << 10) == text)
        fixture.stop()
        channel.finish(patience: 0)
    }

    @Test("the end waits for a reader who is slow but there")
    func finishDrains() throws {
        let (reader, writer) = try makePipe()
        try start(output: .shared(writer, .writeOnly))
        fixture.stop()
        channel.send([UInt8](repeating: 0x61, count: 256 << 10))
        let received = try Inbox()
        let thread = try HostThread(name: "reader", role: .tool) {
            received.append(reader.readFully(256 << 10))
        }
        // Of its own clock no time passes, however busy the machine is.
        channel.finish(patience: 100_000, clock: ManualClock())
        thread.join()
        #expect(received.count == 256 << 10)
    }

    @Test("the end gives up on a reader who does not read")
    func finishGivesUp() throws {
        let (reader, writer) = try makePipe()
        try start(output: .shared(writer, .writeOnly))
        fixture.stop()
        channel.send([UInt8](repeating: 0x61, count: 256 << 10))
        channel.finish(patience: 0)
        #expect(reader.isReady(.readable))
    }

    /// A second passes between two looks at it.
    private final class RacingClock: HostClock {
        private let clock = ManualClock()
        func realtimeNanoseconds() -> UInt64 { 0 }
        func monotonicNanoseconds() -> UInt64 {
            clock.advance(nanoseconds: 1_000_000_000)
            return clock.monotonicNanoseconds()
        }
    }

    @Test("the end gives up after seconds on a reader who takes the output in drops")
    func finishIsBounded() throws {
        let directory = try TemporaryDirectory()
        _ = FileManager.default.createFile(atPath: directory.file("out"), contents: nil)
        let file = try FileDescriptor.open(directory.file("out"), [.writeOnly])
        try start(output: .shared(file, .writeOnly))
        fixture.stop()
        channel.send([UInt8](repeating: 0x61, count: 1 << 20))
        // 64 KiB go with each write.
        channel.finish(patience: 1000, clock: RacingClock())
        let written = try Data(contentsOf: URL(fileURLWithPath: directory.file("out"))).count
        #expect(written == 4 * 64 << 10)
    }

    @Test("output to a pipe without a reader is lost, and nothing else happens")
    func brokenPipe() throws {
        var (reader, writer): (FileDescriptor?, FileDescriptor) = try makePipe()
        let stream = try ByteStream.shared(writer, .writeOnly)
        #expect(reader != nil)
        reader = nil
        try start(output: stream)
        channel.send([1, 2, 3])
        try fixture.sync()
        try fixture.sync()
        fixture.stop()
        channel.finish(patience: 0)
        writer = .standardOutput
    }

    @Test("sockets shared with others are used without waiting")
    func sharedSocket() throws {
        var ends: [Int32] = [-1, -1]
        #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        let (ours, theirs) = (FileDescriptor(owning: ends[0]), FileDescriptor(owning: ends[1]))
        let stream = try ByteStream.shared(ours, .readOnly)
        try start(input: stream, output: stream)
        theirs.writeAll("in")
        channel.send(Array("out".utf8))
        #expect(inbox.wait(for: 2) == Array("in".utf8))
        #expect(theirs.readFully(3) == Array("out".utf8))
        fixture.stop()
        channel.finish(patience: 0)
    }
}
