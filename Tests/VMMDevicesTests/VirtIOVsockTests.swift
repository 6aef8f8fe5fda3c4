import Foundation
import Testing
import VMMBase
import VMMHost
import VMMTestSupport
import VMMVirtIO

@testable import VMMDevices

@Suite("VirtIOVsock")
struct VirtIOVsockTests {
    typealias Operation = VsockHeader.Operation

    @Test(
        "a hostile driver gets a fault or an answer",
        arguments: VirtIODeviceContract.Scenario.allCases)
    func contract(scenario: VirtIODeviceContract.Scenario) throws {
        let directory = try TemporaryDirectory()
        var clients: [FileDescriptor] = []
        let contract = VirtIODeviceContract {
            let path = directory.file("v\(clients.count)")
            let device = try VsockGuest.makeDevice(path, ManualClock())
            // A client that says whom it wants gives the receive queue something to do.
            let client = try UnixListener.connect(to: path)
            #expect(client.send(Array("CONNECT 1\n".utf8)))
            clients.append(client)
            return device
        }
        #expect(try contract.violations(scenario) == [])
    }

    @Test("it is a socket device with three queues and the guest's address")
    func identity() throws {
        let guest = try VsockGuest()
        #expect(guest.device.deviceType.rawValue == 19)
        #expect(guest.device.queueSizes == [256, 256, 256])
        #expect(guest.device.configuration == [3, 0, 0, 0, 0, 0, 0, 0])
        #expect(guest.device.offeredFeatures == 1 << 35 | 1)
    }

    // MARK: host to guest

    @Test("a client reaches the guest, is told its port, and bytes go both ways")
    func hostToGuest() throws {
        let guest = try VsockGuest()
        let client = try guest.client(saying: "CONNECT 52\nhello")
        let request = try #require(try guest.take().first).header
        #expect(request.operation == Operation.request && request.destinationPort == 52)
        #expect(request.sourceCID == 2 && request.destinationCID == 3)
        #expect(request.sourcePort >= 1 << 30 && request.type == 1)
        let key = VsockKey(hostPort: request.sourcePort, guestPort: 52)
        try guest.send(Operation.response, key)
        let packets = try guest.take()
        #expect(packets.map(\.payload) == [Array("hello".utf8)])
        try guest.send(Operation.data, key, Array("world".utf8))
        #expect(try client.text() == "OK \(request.sourcePort)\nworld")
        #expect(guest.device.statistics.connections == 1)
        #expect(guest.device.statistics.receivedBytes == 5)
        #expect(guest.device.statistics.sentBytes == 5)
    }

    @Test("clients get ports of their own")
    func ports() throws {
        let guest = try VsockGuest()
        let first = try guest.accept(1)
        let second = try guest.accept(1)
        #expect(second.key.hostPort == first.key.hostPort + 1)
    }

    @Test("a client whom the guest refuses is closed without a word")
    func refusedByGuest() throws {
        let guest = try VsockGuest()
        let client = try guest.client(saying: "CONNECT 52\n")
        let request = try #require(try guest.take().first).header
        try guest.send(
            Operation.reset, VsockKey(hostPort: request.sourcePort, guestPort: 52))
        #expect(client.arrived() == nil)
        #expect(guest.device.table.count == 0)
    }

    @Test(
        "a client that says nonsense is closed",
        arguments: ["GET / HTTP/1.1\r\n\r\n", "CONNECT x\n", String(repeating: "x", count: 40)])
    func nonsense(words: String) throws {
        let guest = try VsockGuest()
        let client = try guest.client(saying: words)
        #expect(client.arrived() == nil)
        #expect(try guest.operations().isEmpty)
        #expect(guest.device.table.count == 0)
    }

    @Test("a line may come byte by byte")
    func pieces() throws {
        let guest = try VsockGuest()
        let client = try guest.client()
        for byte in "CONNECT 9\n".utf8 {
            #expect(try guest.operations().isEmpty)
            #expect(client.send([byte]))
        }
        #expect(try guest.operations() == [Operation.request])
    }

    @Test("a client that leaves before it has spoken is forgotten", arguments: ["", "CONN"])
    func leavesEarly(words: String) throws {
        let guest = try VsockGuest()
        var client: FileDescriptor? = try guest.client(saying: words)
        #expect(client != nil && guest.device.table.count == 1)
        client = nil
        try guest.poll()
        #expect(guest.device.table.count == 0)
    }

    @Test("a client that spoke and left at once is heard all the same")
    func speaksAndLeaves() throws {
        let guest = try VsockGuest()
        _ = try guest.client(saying: "CONNECT 9\nlast words")
        let request = try #require(try guest.take().first).header
        let key = VsockKey(hostPort: request.sourcePort, guestPort: 9)
        try guest.send(Operation.response, key)
        let packets = try guest.take()
        #expect(packets.flatMap(\.payload) == Array("last words".utf8))
        #expect(packets.last?.header.operation == Operation.shutdown)
        #expect(packets.last?.header.flags == 3)
    }

    @Test("patience ends: for a silent client, and for a silent guest")
    func timeouts() throws {
        let guest = try VsockGuest()
        let silent = try guest.client()
        let waiting = try guest.client(saying: "CONNECT 52\n")
        #expect(try guest.operations() == [Operation.request])
        try guest.pass(nanoseconds: 5_000_000_000)
        let late = try guest.client()
        try guest.pass(nanoseconds: 5_000_000_000)
        #expect(silent.arrived() == nil && late.arrived() == [])
        #expect(try guest.operations() == [])
        try guest.pass(nanoseconds: 50_000_000_000)
        #expect(try guest.operations() == [Operation.reset])
        #expect(waiting.arrived() == nil)
    }

    @Test("no more than 256 clients wait to speak, and the next comes when one has spoken")
    func silentClients() throws {
        let guest = try VsockGuest()
        var clients: [FileDescriptor] = []
        for _ in 0..<300 { clients.append(try UnixListener.connect(to: guest.path)) }
        try guest.poll()
        #expect(guest.device.table.count == 256)
        clients.removeFirst(50)
        try guest.poll()
        #expect(guest.device.table.count == 250)
    }

    @Test("two thousand clients at once are all served")
    func manyClients() throws {
        let guest = try VsockGuest(limit: 3000)
        var clients: [FileDescriptor] = []
        for number in 0..<2000 {
            // The socket's own queue is shorter.
            if number % 1000 == 0 { try guest.poll() }
            let client = try UnixListener.connect(to: guest.path)
            #expect(client.send(Array("CONNECT 1\nhello".utf8)))
            clients.append(client)
        }
        let requests = try guest.take().map(\.header)
        #expect(requests.count == 2000)
        for request in requests {
            let key = VsockKey(hostPort: request.sourcePort, guestPort: 1)
            try guest.send(Operation.response, key)
            try guest.send(Operation.data, key, [1, 2])
        }
        let greetings = try guest.take().filter { $0.payload == Array("hello".utf8) }
        #expect(greetings.count == 2000)
        let answered = clients.count { $0.arrived()?.suffix(2) == [1, 2] }
        #expect(answered == 2000)
        clients = []
        let ends = try guest.take().map(\.header)
        #expect(ends.count == 2000)
        for end in ends {
            try guest.send(
                Operation.reset, VsockKey(hostPort: end.sourcePort, guestPort: 1))
        }
        #expect(guest.device.table.count == 0)
    }

    // MARK: guest to host

    @Test("the guest reaches a listener of the host")
    func guestToHost() throws {
        let guest = try VsockGuest()
        let listener = try guest.listen(80)
        let key = VsockKey(hostPort: 80, guestPort: 1234)
        let server = try guest.connect(listener, key)
        try guest.send(Operation.data, key, [1, 2, 3])
        #expect(server.send([4, 5]))
        #expect(server.arrived() == [1, 2, 3])
        #expect(try guest.take().map(\.payload) == [[4, 5]])
    }

    @Test("where nobody listens, the guest is refused")
    func nobody() throws {
        let guest = try VsockGuest()
        try guest.send(Operation.request, VsockKey(hostPort: 80, guestPort: 1))
        let packets = try guest.take()
        #expect(packets.map(\.header.operation) == [Operation.reset])
        #expect(packets.first?.header.destinationPort == 1)
        #expect(guest.device.table.count == 0 && guest.device.statistics.resets == 1)
    }

    @Test("a listener that is busy is tried again, and the guest refused in the end")
    func busy() throws {
        let guest = try VsockGuest()
        let listener = try guest.listen(80, backlog: 0)
        let first = VsockKey(hostPort: 80, guestPort: 1)
        let second = VsockKey(hostPort: 80, guestPort: 2)
        try guest.send(Operation.request, first)
        try guest.send(Operation.request, second)
        #expect(try guest.operations() == [Operation.response])
        let accepted = listener.accept()
        try guest.pass(nanoseconds: 10_000_000)
        #expect(accepted != nil)
        #expect(try guest.operations() == [Operation.response])

        try guest.send(Operation.request, VsockKey(hostPort: 80, guestPort: 3))
        for _ in 0..<200 { try guest.pass(nanoseconds: 10_000_000) }
        #expect(try guest.operations() == [Operation.reset])
    }

    @Test("a guest that uses ports again gets a new connection")
    func reuse() throws {
        let guest = try VsockGuest()
        let listener = try guest.listen(80)
        let key = VsockKey(hostPort: 80, guestPort: 1)
        let first = try guest.connect(listener, key)
        let second = try guest.connect(listener, key)
        try guest.send(Operation.data, key, [7])
        #expect(first.arrived() == nil && second.arrived() == [7])
        #expect(guest.device.table.count == 1)
    }

    @Test("two thousand connections of the guest at once are all open")
    func manyConnections() throws {
        let guest = try VsockGuest(limit: 3000)
        let listener = try guest.listen(80, backlog: 4096)
        var servers: [FileDescriptor] = []
        for port in 0..<2000 {
            let key = VsockKey(hostPort: 80, guestPort: UInt32(port))
            servers.append(try guest.connect(listener, key))
            try guest.send(Operation.data, key, [7])
        }
        let answered = servers.filter { $0.arrived() == [7] && $0.send([8]) }
        #expect(answered.count == 2000)
        #expect(try guest.take().filter { $0.payload == [8] }.count == 2000)
    }

    // MARK: ends

    @Test("the guest's half-close comes after its bytes, and the host may go on")
    func guestHalfClose() throws {
        let guest = try VsockGuest()
        let (client, key) = try guest.accept(1)
        try guest.send(Operation.data, key, [1, 2])
        try guest.send(Operation.shutdown, key, flags: 2)
        #expect(client.arrived() == [1, 2] && client.arrived() == nil)
        #expect(client.send([9]))
        #expect(try guest.take().map(\.payload) == [[9]])
    }

    @Test("the host's half-close comes after its bytes, and the guest may go on")
    func hostHalfClose() throws {
        let guest = try VsockGuest()
        let (client, key) = try guest.accept(1)
        #expect(client.send([1, 2]))
        client.shutDown(.sending)
        let packets = try guest.take()
        #expect(packets.map(\.payload) == [[1, 2], []])
        #expect(packets.last?.header.flags == 2)
        try guest.send(Operation.data, key, [3])
        #expect(client.arrived() == [3])
    }

    @Test("a host that leaves shuts both ways, and the guest's confirmation ends it")
    func hostLeaves() throws {
        let guest = try VsockGuest()
        var (client, key): (FileDescriptor?, VsockKey) = try guest.accept(1)
        #expect(client?.send([1]) == true)
        client = nil
        let packets = try guest.take()
        #expect(packets.flatMap(\.payload) == [1])
        #expect(packets.last?.header.operation == Operation.shutdown)
        #expect(packets.last?.header.flags == 3)
        try guest.send(Operation.reset, key)
        #expect(try guest.operations().isEmpty)
        #expect(guest.device.table.count == 0)
    }

    @Test("a guest that does not confirm the end is reset")
    func unconfirmed() throws {
        let guest = try VsockGuest()
        _ = try guest.accept(1)
        let packets = try guest.take().map(\.header)
        #expect(packets.map(\.operation) == [Operation.shutdown])
        #expect(packets.first?.flags == 3)
        try guest.pass(nanoseconds: 2_000_000_000)
        #expect(try guest.operations() == [Operation.reset])
        #expect(guest.device.table.count == 0)
    }

    @Test("what a host left unread does not keep its own bytes from the guest")
    func leavesUnread() throws {
        let guest = try VsockGuest()
        var (client, key): (FileDescriptor?, VsockKey) = try guest.accept(1, window: 0)
        #expect(client?.send(Array(repeating: 5, count: 2000)) == true)
        try guest.send(Operation.data, key, [1, 2, 3], window: 0)
        client = nil
        _ = try guest.take()
        try guest.send(Operation.creditUpdate, key)
        let packets = try guest.take()
        #expect(packets.flatMap(\.payload).count == 2000)
        #expect(packets.last?.header.flags == 3)
    }

    @Test("a guest that closes is confirmed at once, and its bytes still reach a slow host")
    func lingering() throws {
        let guest = try VsockGuest()
        let (client, key) = try guest.accept(1)
        var sent = 0
        // More than the socket takes: some waits with us.
        while guest.device.table[key]?.backlog.isEmpty == true {
            try guest.send(Operation.data, key, Array(repeating: 1, count: 60000))
            sent += 60000
        }
        try guest.send(Operation.shutdown, key, flags: 3)
        #expect(try guest.operations().last == Operation.reset)
        #expect(guest.device.table[key] == nil && guest.device.table.count == 1)
        var received = 0
        while let bytes = client.arrived() {
            received += bytes.count
            try guest.poll()
        }
        #expect(received == sent)
        #expect(guest.device.table.count == 0)
    }

    // MARK: credit

    @Test("the guest's room is never exceeded, and used as soon as there is some")
    func guestCredit() throws {
        let guest = try VsockGuest()
        let (client, key) = try guest.accept(1, window: 1000)
        #expect(client.send(Array(repeating: 1, count: 5000)))
        let first = try guest.take()
        #expect(first.flatMap(\.payload).count == 1000)
        #expect(!first.contains { $0.header.operation == Operation.creditRequest })
        try guest.send(Operation.creditUpdate, key, window: 1000, forwarded: 300)
        #expect(try guest.take().flatMap(\.payload).count == 300)
        try guest.send(Operation.creditUpdate, key, window: 10000, forwarded: 300)
        #expect(try guest.take().flatMap(\.payload).count == 3700)
    }

    @Test("a guest that does not tell of its room is asked after a while, once, and not before")
    func silentGuest() throws {
        let guest = try VsockGuest()
        let (client, key) = try guest.accept(1, window: 1000)
        #expect(client.send(Array(repeating: 1, count: 5000)))
        _ = try guest.take()
        try guest.pass(nanoseconds: 19_000_000)
        #expect(try guest.operations().isEmpty)
        try guest.pass(nanoseconds: 1_000_000)
        #expect(try guest.operations() == [Operation.creditRequest])
        // Nothing new: it still has no room, and will tell.
        try guest.send(Operation.creditUpdate, key, window: 1000)
        try guest.pass(nanoseconds: 50_000_000)
        #expect(try guest.operations().isEmpty)
        try guest.send(Operation.creditUpdate, key, window: 1000, forwarded: 1000)
        #expect(try guest.take().flatMap(\.payload).count == 1000)
        // Room that comes in time ends the wait.
        try guest.pass(nanoseconds: 10_000_000)
        try guest.send(Operation.creditUpdate, key, window: 1000, forwarded: 1500)
        #expect(try guest.take().flatMap(\.payload).count == 500)
        try guest.pass(nanoseconds: 15_000_000)
        #expect(try guest.operations().isEmpty)
        try guest.pass(nanoseconds: 5_000_000)
        #expect(try guest.operations() == [Operation.creditRequest])
    }

    @Test("a stopped reader stops its own connection, whose credit comes back with it")
    func stoppedReader() throws {
        let guest = try VsockGuest()
        let (slow, key) = try guest.accept(1)
        let (quick, other) = try guest.accept(2)
        let window = Int(VsockTable.largeWindow)
        var sent = 0
        var forwarded = 0
        while sent - forwarded < window {
            let count = min(60000, window - (sent - forwarded))
            try guest.send(Operation.data, key, Array(repeating: 1, count: count))
            sent += count
            forwarded = Int(
                try guest.take().last { $0.header.destinationPort == 1 }?.header.forwarded
                    ?? UInt32(forwarded))
            if sent > 8 << 20 { break }
        }
        #expect(sent - forwarded == window)
        try guest.send(Operation.data, other, [1])
        #expect(quick.arrived() == [1])
        #expect(try guest.operations().isEmpty)
        var received = slow.arrived()?.count ?? 0
        #expect(try guest.operations().contains(Operation.creditUpdate))
        received += slow.arrived()?.count ?? 0
        try guest.poll()
        received += slow.arrived()?.count ?? 0
        #expect(received == sent)
    }

    @Test("a guest that sends more than there is room for is reset")
    func overrun() throws {
        let guest = try VsockGuest()
        let (client, key) = try guest.accept(1)
        // More in one packet than the whole buffer.
        try guest.send(
            Operation.data, key, Array(repeating: 1, count: Int(VsockTable.largeWindow) + 1))
        #expect(try guest.operations() == [Operation.reset])
        #expect(client.arrived() == nil && guest.device.table.count == 0)
    }

    @Test("a question for credit is answered")
    func creditRequest() throws {
        let guest = try VsockGuest()
        let (_client, key) = try guest.accept(1)
        try guest.send(Operation.data, key, [1, 2, 3])
        try guest.send(Operation.creditRequest, key)
        let answer = try guest.take().first?.header
        #expect(answer?.operation == Operation.creditUpdate && answer?.forwarded == 3)
        #expect(answer?.window == VsockTable.largeWindow)
        withExtendedLifetime(_client) {}
    }

    // MARK: hostile guests

    @Test("packets from or to somebody else are dropped and counted")
    func addresses() throws {
        let guest = try VsockGuest()
        let key = VsockKey(hostPort: 1, guestPort: 1)
        var header = VsockGuest.header(Operation.request, key)
        header.destinationCID = 4
        try guest.send(raw: header)
        header.destinationCID = 1 << 32 | 2
        try guest.send(raw: header)
        header = VsockGuest.header(Operation.request, key)
        header.sourceCID = 5
        try guest.send(raw: header)
        try guest.send(bytes: Array(repeating: 1, count: 43))
        #expect(try guest.operations().isEmpty)
        #expect(guest.device.statistics.dropped == 4)
    }

    @Test("other types of sockets, and packets of no connection, are refused; a reset is not")
    func refusals() throws {
        let guest = try VsockGuest()
        let key = VsockKey(hostPort: 1, guestPort: 1)
        var header = VsockGuest.header(Operation.request, key)
        header.type = 2
        try guest.send(raw: header)
        #expect(try guest.take().map(\.header.type) == [2])
        for operation in [Operation.data, Operation.response, Operation.shutdown, 77] {
            try guest.send(operation, key)
        }
        try guest.send(Operation.reset, key)
        #expect(try guest.operations() == Array(repeating: Operation.reset, count: 4))
    }

    @Test("a payload shorter than its header says is a reset")
    func shortPayload() throws {
        let guest = try VsockGuest()
        let (client, key) = try guest.accept(1)
        try guest.send(raw: VsockGuest.header(Operation.data, key, length: 5), [1, 2, 3, 4])
        #expect(try guest.operations() == [Operation.reset])
        #expect(client.arrived() == nil)
    }

    @Test("a payload ends where its header says")
    func longPayload() throws {
        let guest = try VsockGuest()
        let (client, key) = try guest.accept(1)
        try guest.send(raw: VsockGuest.header(Operation.data, key, length: 2), [1, 2, 3, 4])
        #expect(client.arrived() == [1, 2])
    }

    @Test("a guest that takes no answers is not listened to for ever")
    func noBuffers() throws {
        let guest = try VsockGuest(buffers: 0)
        let queue = guest.driver.queues[VirtIOVsock.Queue.transmit]
        let key = VsockKey(hostPort: 1, guestPort: 1)
        var bytes = [UInt8](repeating: 0, count: VsockHeader.byteCount)
        VsockGuest.header(Operation.data, key).encode(into: &bytes)
        let packet = guest.driver.readable(bytes)
        var taken = 0
        for _ in 0..<3 {
            queue.recycle()
            for _ in 0..<200 { queue.add([packet]) }
            try guest.driver.ring(VirtIOVsock.Queue.transmit)
            try guest.driver.settle()
            taken += queue.takeUsed().count
            if taken > 200 { break }
        }
        // One refusal for each, and no room for more.
        #expect(taken == 256)
        try guest.offer(16, 128)
        taken += queue.takeUsed().count
        #expect(taken == 400)
        #expect(try guest.operations().count == 400)
    }

    @Test("20,000 requests keep to the limit, and the device goes on")
    func flood() throws {
        let guest = try VsockGuest(limit: 100)
        let listener = try guest.listen(80, backlog: 4096)
        for port in 0..<20000 {
            try guest.send(
                Operation.request, VsockKey(hostPort: 80, guestPort: UInt32(port)))
        }
        #expect(guest.device.table.count == 100)
        let operations = try guest.operations()
        #expect(operations.filter { $0 == Operation.response }.count == 100)
        #expect(operations.filter { $0 == Operation.reset }.count == 19900)
        try guest.send(Operation.shutdown, VsockKey(hostPort: 80, guestPort: 0), flags: 3)
        let client = try #require(listener.accept())
        #expect(client.arrived() == nil)
        _ = try guest.take()
        try guest.send(Operation.request, VsockKey(hostPort: 80, guestPort: 30000))
        #expect(guest.device.table.count == 100)
    }

    @Test("a receive buffer without room for a byte is a fault")
    func uselessBuffer() throws {
        let guest = try VsockGuest(buffers: 0)
        _ = try UnixListener.connect(to: guest.path).send(Array("CONNECT 1\n".utf8))
        #expect(throws: GuestFault.self) { try guest.offer(1, 44) }
    }

    // MARK: resets

    @Test("a reset closes all connections, and the next driver starts afresh")
    func resets() throws {
        let guest = try VsockGuest()
        let (client, _) = try guest.accept(1)
        let silent = try guest.client()
        try guest.restart()
        #expect(client.arrived() == nil && silent.arrived() == nil)
        #expect(guest.device.table.count == 0)
        let (second, key) = try guest.accept(1)
        try guest.send(Operation.data, key, [1])
        #expect(second.arrived() == [1])
    }

    @Test("clients that come while there is no driver are served by the next")
    func early() throws {
        let guest = try VsockGuest()
        guest.device.quiesce()
        let client = try UnixListener.connect(to: guest.path)
        #expect(client.send(Array("CONNECT 6\n".utf8)))
        try guest.restart()
        #expect(try guest.take().first?.header.destinationPort == 6)
        withExtendedLifetime(client) {}
    }

    @Test("a reset of the transport is told by an event, as soon as there is a buffer")
    func transportReset() throws {
        let guest = try VsockGuest()
        let queue = guest.driver.queues[VirtIOVsock.Queue.event]
        try guest.device.resetTransport()
        let buffer = guest.driver.buffer(8, isWritable: true, bytes: Array(repeating: 9, count: 8))
        queue.add([buffer])
        try guest.driver.ring(VirtIOVsock.Queue.event)
        #expect(queue.takeUsed().map(\.written) == [4])
        #expect(guest.driver.contents(buffer) == [0, 0, 0, 0, 9, 9, 9, 9])
    }

    @Test("a guest that connects to the port for that is up, once for each driver")
    func ready() throws {
        let guest = try VsockGuest()
        var told = 0
        guest.device.guestIsReady = { told += 1 }
        try guest.send(Operation.request, VsockKey(hostPort: 1, guestPort: 9))
        #expect(told == 0)
        for port in 10..<13 as Range<UInt32> {
            let key = VsockKey(hostPort: VirtIOVsock.readyPort, guestPort: port)
            try guest.send(Operation.request, key)
            #expect(try guest.take().last?.header.operation == Operation.reset)
        }
        #expect(told == 1)
        try guest.restart()
        let key = VsockKey(hostPort: VirtIOVsock.readyPort, guestPort: 9)
        try guest.send(Operation.request, key)
        #expect(told == 2)
    }
}
