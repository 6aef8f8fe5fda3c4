import Testing

@testable import VMMDevices

@Suite("VsockStream")
struct VsockStreamTests {
    private typealias Operation = VsockHeader.Operation
    private static let key = VsockKey(hostPort: 1000, guestPort: 52)

    private static func packet(
        _ operation: UInt16, length: UInt32 = 0, flags: UInt32 = 0, window: UInt32 = 100
    ) -> VsockHeader {
        VsockGuest.header(operation, key, length: length, flags: flags, window: window)
    }

    /// Operations of all packets that wait.
    private static func drain(_ stream: inout VsockStream) -> [UInt16] {
        var operations: [UInt16] = []
        while let header = stream.nextPacket(to: 3) { operations.append(header.operation) }
        return operations
    }

    private static func receive(
        _ stream: inout VsockStream, _ header: VsockHeader
    ) -> VsockStream.Verdict {
        stream.receive(header)
    }

    private static func established() -> VsockStream {
        var stream = VsockStream.toGuest(key, window: 100)
        _ = drain(&stream)
        _ = stream.receive(packet(Operation.response))
        return stream
    }

    @Test("a connection to the guest begins with a request, and is open with the answer")
    func toGuest() throws {
        var stream = VsockStream.toGuest(Self.key, window: 100)
        let next = stream.nextPacket(to: 3)
        let request = try #require(next)
        #expect(request.operation == Operation.request && request.window == 100)
        #expect(request.sourcePort == 1000 && request.destinationPort == 52)
        #expect(Self.receive(&stream, Self.packet(Operation.response)) == .open)
        #expect(stream.phase == .established && stream.credit.room == 100)
    }

    @Test("a connection of the guest is answered when the host's side is there")
    func toHost() {
        var stream = VsockStream.toHost(Self.packet(Operation.request, window: 7), window: 100)
        let before = Self.drain(&stream)
        stream.accept()
        #expect(before.isEmpty && Self.drain(&stream) == [Operation.response])
        #expect(stream.takesData && stream.credit.room == 7)
    }

    @Test(
        "what is out of place breaks the rules",
        arguments: [Operation.data, Operation.response, Operation.shutdown, 0, 8, .max])
    func violations(operation: UInt16) {
        var connecting = VsockStream.toHost(Self.packet(Operation.request), window: 100)
        #expect(Self.receive(&connecting, Self.packet(operation)) == .violation)
    }

    @Test("an unknown operation, a second answer and too many bytes break the rules")
    func moreViolations() {
        var stream = Self.established()
        #expect(Self.receive(&stream, Self.packet(9)) == .violation)
        #expect(Self.receive(&stream, Self.packet(Operation.response)) == .violation)
        #expect(Self.receive(&stream, Self.packet(Operation.data, length: 101)) == .violation)
        #expect(Self.receive(&stream, Self.packet(Operation.data, length: 100)) == .deliver)
    }

    @Test("the guest's half-close ends its own direction only")
    func guestHalfClose() {
        var stream = Self.established()
        #expect(Self.receive(&stream, Self.packet(Operation.shutdown, flags: 2)) == .shutDown)
        #expect(stream.takesData)
        #expect(Self.receive(&stream, Self.packet(Operation.data, length: 1)) == .violation)
        #expect(
            Self.receive(&stream, Self.packet(Operation.shutdown, flags: 0xffff_fffd)) == .shutDown)
        #expect(stream.guestShutdown == .both && !stream.takesData)
    }

    @Test("the host's half-close is told once, after all else")
    func hostHalfClose() {
        var stream = Self.established()
        stream.shutDown(.sending)
        _ = stream.receive(Self.packet(Operation.creditRequest))
        let told = Self.drain(&stream)
        stream.shutDown(.sending)
        #expect(told == [Operation.creditUpdate, Operation.shutdown])
        #expect(Self.drain(&stream).isEmpty && stream.phase == .established)
    }

    @Test("with both ways shut the guest's confirmation is awaited, and late bytes are ignored")
    func closing() {
        var stream = Self.established()
        stream.shutDown(.receiving)
        stream.shutDown(.sending)
        let header = stream.nextPacket(to: 3)
        #expect(header?.operation == Operation.shutdown && header?.flags == 3)
        #expect(stream.phase == .closing)
        #expect(Self.receive(&stream, Self.packet(Operation.data, length: 5)) == .nothing)
        #expect(Self.receive(&stream, Self.packet(Operation.reset)) == .ended)
    }

    @Test("a reset takes the place of all that waits, and is the last packet")
    func reset() {
        var stream = Self.established()
        stream.shutDown(.sending)
        stream.reset()
        #expect(Self.receive(&stream, Self.packet(Operation.data, length: 999)) == .nothing)
        #expect(Self.drain(&stream) == [Operation.reset])
        #expect(stream.phase == .detached)
    }

    @Test("credit is asked for once, and again after news")
    func creditRequests() {
        var stream = Self.established()
        stream.askForCredit()
        stream.askForCredit()
        let first = Self.drain(&stream)
        stream.askForCredit()
        let second = Self.drain(&stream)
        _ = stream.receive(Self.packet(Operation.creditUpdate, window: 99))
        stream.askForCredit()
        #expect(first == [Operation.creditRequest] && second.isEmpty)
        #expect(Self.drain(&stream) == [Operation.creditRequest])
    }

    @Test("a packet with data tells the guest of its room as well")
    func piggyback() {
        var stream = Self.established()
        _ = stream.receive(Self.packet(Operation.data, length: 100))
        stream.forward(100)
        let header = stream.dataPacket(10, to: 3)
        #expect(header.forwarded == 100 && header.length == 10)
        #expect(stream.pending.isEmpty && stream.credit.room == 90)
    }
}
