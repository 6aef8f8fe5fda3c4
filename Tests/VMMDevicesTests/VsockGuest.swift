import Foundation
import Testing
import VMMBase
import VMMHost
import VMMTestSupport
import VMMVirtIO

@testable import VMMDevices

/// A guest's driver of a vsock device, packet by packet.
final class VsockGuest {
    static let cid: UInt64 = 3
    /// Large enough for what the device gives in one turn.
    private static let largestPayload: UInt32 = 300 << 10

    struct Packet: Equatable {
        let header: VsockHeader
        let payload: [UInt8]
    }

    let device: VirtIOVsock
    let driver: FakeDriver
    let directory: TemporaryDirectory
    let clock = ManualClock(monotonic: 1)
    /// What the device sent, oldest first.
    private(set) var inbox: [Packet] = []
    private var buffers: [FakeQueue.Buffer] = []
    private let outgoing: FakeQueue.Buffer

    /// `buffers` buffers of `bufferSize` bytes wait for packets, and come back as they are used.
    init(buffers count: Int = 32, bufferSize: UInt32 = 4096, limit: Int = 1000) throws {
        directory = try TemporaryDirectory()
        device = try Self.makeDevice(directory.file("v"), clock, limit: limit)
        driver = try FakeDriver(device)
        outgoing = driver.buffer(
            UInt32(VsockHeader.byteCount) + Self.largestPayload, isWritable: false)
        try offer(count, bufferSize)
    }

    static func makeDevice(
        _ path: String, _ clock: any HostClock, limit: Int = 1000
    ) throws -> VirtIOVsock {
        try VirtIOVsock(
            id: "__vsock", guest: cid,
            listener: try UnixListener(path: path, backlog: 4096, isPrivate: true), clock: clock,
            limit: limit)
    }

    var path: String { directory.file("v") }

    /// Adds receive buffers.
    func offer(_ count: Int, _ bufferSize: UInt32) throws {
        for _ in 0..<count {
            let buffer = driver.buffer(bufferSize, isWritable: true)
            driver.queues[VirtIOVsock.Queue.receive].add([buffer])
            buffers.append(buffer)
        }
        try driver.ring(VirtIOVsock.Queue.receive)
        try poll()
    }

    /// Resets the device and starts it again, with as many buffers as before.
    func restart() throws {
        let (count, size) = (buffers.count, buffers.first?.count ?? 0)
        device.quiesce()
        try driver.activate()
        _ = driver.buffer(UInt32(VsockHeader.byteCount) + Self.largestPayload, isWritable: false)
        buffers = []
        inbox = []
        try offer(count, size)
    }

    /// Sends a packet as it is, and takes what comes back.
    func send(raw header: VsockHeader, _ payload: [UInt8] = []) throws {
        var bytes = [UInt8](repeating: 0, count: VsockHeader.byteCount)
        header.encode(into: &bytes)
        try send(bytes: bytes + payload)
    }

    func send(bytes: [UInt8]) throws {
        let queue = driver.queues[VirtIOVsock.Queue.transmit]
        let isCopied = driver.memory.copyIn(bytes, at: outgoing.address)
        try #require(isCopied)
        queue.recycle()
        queue.add([FakeQueue.Buffer(outgoing.address, UInt32(bytes.count), isWritable: false)])
        try driver.ring(VirtIOVsock.Queue.transmit)
        try poll()
        // A device without room for an answer keeps the packet until there is.
        var patience = 10
        while queue.takeUsed().isEmpty, patience > 0 {
            patience -= 1
            try poll()
        }
        #expect(patience > 0, "the device takes a packet")
    }

    /// A packet of a connection.
    func send(
        _ operation: UInt16, _ key: VsockKey, _ payload: [UInt8] = [], flags: UInt32 = 0,
        window: UInt32 = 1 << 20, forwarded: UInt32 = 0
    ) throws {
        try send(
            raw: Self.header(
                operation, key, length: UInt32(payload.count), flags: flags, window: window,
                forwarded: forwarded),
            payload)
    }

    static func header(
        _ operation: UInt16, _ key: VsockKey, length: UInt32 = 0, flags: UInt32 = 0,
        window: UInt32 = 1 << 20, forwarded: UInt32 = 0
    ) -> VsockHeader {
        VsockHeader(
            sourceCID: cid, destinationCID: VsockHeader.hostCID, sourcePort: key.guestPort,
            destinationPort: key.hostPort, length: length, operation: operation, flags: flags,
            window: window, forwarded: forwarded)
    }

    /// Lets the device work until it rests, and takes its packets.
    func poll() throws {
        let queue = driver.queues[VirtIOVsock.Queue.receive]
        var found = 1
        while found > 0 {
            try driver.settle()
            let used = queue.takeUsed()
            found = used.count
            for completion in used {
                let buffer = buffers[Int(completion.head)]
                let bytes = driver.contents(buffer, count: completion.written)
                let header = try #require(VsockHeader(bytes))
                inbox.append(
                    Packet(header: header, payload: Array(bytes[VsockHeader.byteCount...])))
                queue.offer(UInt16(completion.head))
            }
            if found > 0 { try driver.ring(VirtIOVsock.Queue.receive) }
        }
    }

    /// Lets time pass, and the device notice it.
    func pass(nanoseconds: UInt64) throws {
        clock.advance(nanoseconds: nanoseconds)
        device.endWaits()
        try driver.ring(VirtIOVsock.Queue.receive)
        try poll()
    }

    /// What came, which is forgotten then.
    func take() throws -> [Packet] {
        try poll()
        defer { inbox = [] }
        return inbox
    }

    func operations() throws -> [UInt16] { try take().map(\.header.operation) }

    // MARK: connections

    /// A client of the host that has sent `words`.
    func client(saying words: String = "") throws -> FileDescriptor {
        let client = try UnixListener.connect(to: path)
        if !words.isEmpty { #expect(client.send(Array(words.utf8))) }
        try poll()
        return client
    }

    /// A connection from the host to a port of the guest.
    func accept(
        _ port: UInt32, window: UInt32 = 1 << 20
    ) throws -> (client: FileDescriptor, key: VsockKey) {
        let client = try client(saying: "CONNECT \(port)\n")
        let request = try #require(try take().first).header
        let key = VsockKey(hostPort: request.sourcePort, guestPort: request.destinationPort)
        try send(VsockHeader.Operation.response, key, window: window)
        #expect(try client.text() == "OK \(key.hostPort)\n")
        return (client, key)
    }

    /// A listener of the host for a port.
    func listen(_ port: UInt32, backlog: Int32 = 64) throws -> UnixListener {
        try UnixListener(path: "\(path)_\(port)", backlog: backlog)
    }

    /// A connection of the guest to a listener of the host.
    func connect(
        _ listener: UnixListener, _ key: VsockKey, window: UInt32 = 1 << 20
    ) throws -> FileDescriptor {
        try send(VsockHeader.Operation.request, key, window: window)
        #expect(try operations() == [VsockHeader.Operation.response])
        return try #require(listener.accept())
    }
}

extension FileDescriptor {
    /// What has arrived, up to 1 MiB; nil at the end of the stream or when it has failed.
    func arrived() -> [UInt8]? {
        let limit = 1 << 20
        var state = 1
        let bytes = [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in
            while count < limit, state > 0 {
                let room = UnsafeMutableRawBufferPointer(
                    rebasing: UnsafeMutableRawBufferPointer(buffer)[count...])
                state = recv(rawValue, room.baseAddress, room.count, Int32(MSG_DONTWAIT))
                count += max(0, state)
            }
        }
        let isOpen = state > 0 || state < 0 && errno == EAGAIN
        return bytes.isEmpty && !isOpen ? nil : bytes
    }

    func text() throws -> String {
        String(decoding: try #require(arrived()), as: UTF8.self)
    }

    /// Sends all, which the socket has room for.
    func send(_ bytes: [UInt8]) -> Bool { send(bytes, 0..<bytes.count) == .moved(bytes.count) }
}
