import VMMBase
import VMMHost
import VMMVirtIO

/// A virtio console with one port (VirtIO 1.3, 5.3). Lives on its worker's loop; its channel may
/// live on another one.
package final class VirtIOConsole: VirtIODevice {
    private enum Queue {
        static let receive = 0
        static let transmit = 1
    }

    /// The configuration has a terminal's size (5.3.3).
    private static let sizeFeature: UInt64 = 1 << 0
    private static let queueSize: UInt16 = 256
    /// Bytes moved per queue and call before others on the loop have their turn.
    private static let turn = 1 << 20
    /// Bytes copied at once from one request.
    private static let chunk = 64 << 10

    /// A queue, and the chain that its requests are popped into.
    private struct Active {
        let queue: VirtQueue
        let chain: DescriptorChain
    }

    package let id: String
    package let deviceType = VirtIODeviceType.console
    package let queueSizes = [queueSize, queueSize]
    package let offeredFeatures = sizeFeature
    package var configurationChanged: (() -> Void)?

    private let channel: any ByteChannel
    private let input: InputBuffer
    /// Raised by input and by a new size.
    private let wakeUp: EventFD
    private var receive: Active?
    private var transmit: Active?
    private var announcedSize: TerminalSize?
    private var output: [UInt8] = []

    /// The channel is started by `startChannel`.
    package init(id: String, channel: any ByteChannel) throws {
        self.id = id
        self.channel = channel
        input = InputBuffer(channel: channel)
        wakeUp = try EventFD()
        announcedSize = channel.size
    }

    /// Starts the channel, with this console as the one who takes its input. Before the device is
    /// given to a transport.
    package func startChannel(on loop: EventLoop) throws {
        let wakeUp = wakeUp
        channel.onResize { wakeUp.signal() }
        // Weak, for the input holds the channel.
        try channel.start(on: loop) { [weak input] bytes in
            input?.append(bytes)
            wakeUp.signal()
        }
    }

    /// Columns, rows, the number of ports, and the emergency write, which is not offered.
    package var configuration: [UInt8] {
        var builder = ByteBuilder()
        builder.append(announcedSize?.columns ?? 0)
        builder.append(announcedSize?.rows ?? 0)
        builder.append(UInt32(1))
        builder.append(UInt32(0))
        return builder.bytes
    }

    package func activate(_ queues: [VirtQueue?], features: UInt64) throws {
        for (index, queue) in queues.enumerated() {
            if let queue { try activate(queue, at: index) }
        }
    }

    package func activate(_ queue: VirtQueue, at index: Int) throws {
        let active = try queue.makeChains(1).first.map { Active(queue: queue, chain: $0) }
        if index == Queue.receive { receive = active } else { transmit = active }
        // What came while there was no driver; the worker listens from now on.
        wakeUp.signal()
    }

    package func service(queue index: Int) throws(GuestFault) {
        switch index {
        case Queue.receive: try serviceReceive()
        case Queue.transmit: try serviceTransmit()
        default: break
        }
    }

    package func quiesce() {
        for index in queueSizes.indices { quiesce(queue: index) }
    }

    package func quiesce(queue index: Int) {
        if index == Queue.receive { receive = nil } else { transmit = nil }
    }

    package var wakeSources: [FileDescriptor] { [wakeUp.descriptor] }

    package func wake(source index: Int) throws(GuestFault) {
        // Becoming writable is an event, too: the one that clearing causes.
        guard wakeUp.clear() else { return }
        announceSize()
        try serviceReceive()
        try serviceTransmit()
    }

    private func announceSize() {
        let size = channel.size
        if size == announcedSize { return }
        announcedSize = size
        configurationChanged?()
    }

    /// Moves input into the driver's buffers. While there is none the driver need not ring.
    private func serviceReceive() throws(GuestFault) {
        guard let receive else { return }
        let queue = receive.queue
        queue.suppressDoorbell()
        var requests = Int(queue.size)
        repeat {
            while requests > 0, input.count > 0, try queue.pop(into: receive.chain) {
                requests -= 1
                let room = Int(clamping: receive.chain.writable.byteCount)
                let bytes = input.take(min(room, Self.chunk))
                let written = receive.chain.writable.copyIn(bytes)
                queue.push(receive.chain, written: UInt32(clamping: written))
            }
            if input.count == 0 || requests == 0 { break }
        } while queue.armDoorbell()
        if requests == 0, input.count > 0 { queue.serviceAgain() }
        queue.notify()
    }

    private func serviceTransmit() throws(GuestFault) {
        guard let transmit else { return }
        let queue = transmit.queue
        queue.suppressDoorbell()
        var requests = Int(queue.size)
        var budget = Self.turn
        repeat {
            while requests > 0, budget > 0, try queue.pop(into: transmit.chain) {
                requests -= 1
                budget -= forward(transmit.chain.readable, limit: budget)
                queue.push(transmit.chain, written: 0)
            }
            if requests == 0 || budget <= 0 { queue.serviceAgain() }
        } while requests > 0 && budget > 0 && queue.armDoorbell()
        queue.notify()
    }

    /// Sends a request's bytes, at most `limit`: the channel keeps no more than that anyway.
    /// Returns how many.
    private func forward(_ source: GuestVector, limit: Int) -> Int {
        var sent = 0
        while sent < limit, !source.isEmpty {
            output.removeAll(keepingCapacity: true)
            source.copyOut(into: &output, limit: min(Self.chunk, limit - sent))
            source.removeFirst(output.count)
            channel.send(output)
            sent += output.count
        }
        return sent
    }
}
