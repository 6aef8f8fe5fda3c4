import VMMBase
import VMMHost
import VMMVirtIO

/// The virtio entropy source (VirtIO 1.3, 5.4). Lives on its worker's loop.
package final class VirtIOEntropy: VirtIODevice {
    private static let queueSize: UInt16 = 256
    /// Bytes that one request gets at most; drivers ask for some dozens.
    private static let requestLimit: UInt64 = 64 << 10
    /// Bytes per call, about half a millisecond's worth of the kernel's generator.
    private static let turn: UInt64 = 256 << 10

    /// Paths of the kernel's own generator, which needs no open file.
    private static let systemPaths = ["/dev/urandom", "/dev/random"]

    package let id: String
    package let deviceType = VirtIODeviceType.entropy
    package let queueSizes = [queueSize]
    package let offeredFeatures: UInt64 = 0
    package let configuration: [UInt8] = []
    package var configurationChanged: (() -> Void)?

    private let path: String
    /// Nil for the kernel's own generator.
    private let source: FileDescriptor?
    private var hasWarned = false
    private var queue: VirtQueue?
    private var chain: DescriptorChain?

    /// Takes entropy from the file at `path`. Where that runs dry the kernel's generator fills in,
    /// because a request must get at least one random byte (5.4.6.2).
    package init(id: String, path: String = "/dev/urandom") throws(HostError) {
        self.id = id
        self.path = path
        source =
            Self.systemPaths.contains(path)
            ? nil : try .open(path, [.readOnly, .nonBlocking, .noControllingTerminal])
    }

    package func activate(_ queues: [VirtQueue?], features: UInt64) throws {
        if let queue = queues.first ?? nil { try activate(queue, at: 0) }
    }

    package func activate(_ queue: VirtQueue, at index: Int) throws {
        chain = try queue.makeChains(1).first
        self.queue = queue
    }

    package func service(queue index: Int) throws(GuestFault) {
        guard index == 0, let queue, let chain else { return }
        queue.suppressDoorbell()
        var requests = Int(queue.size)
        var bytes = Self.turn
        repeat {
            while requests > 0, bytes > 0, try queue.pop(into: chain) {
                requests -= 1
                let written = fill(chain.writable)
                bytes -= min(bytes, written)
                queue.push(chain, written: UInt32(clamping: written))
            }
            if requests == 0 || bytes == 0 { queue.serviceAgain() }
        } while requests > 0 && bytes > 0 && queue.armDoorbell()
        queue.notify()
    }

    package func quiesce(queue index: Int) { quiesce() }

    package func quiesce() {
        queue = nil
        chain = nil
    }

    /// Fills the request, up to the limit; returns the bytes filled, from its start on.
    private func fill(_ target: GuestVector) -> UInt64 {
        target.truncate(to: Self.requestLimit)
        var filled: UInt64 = 0
        if let source, !target.isEmpty {
            if case .moved(let count) = source.read(into: target) {
                filled = UInt64(clamping: count)
                target.removeFirst(count)
            }
            if !target.isEmpty { warnOnce() }
        }
        return filled + target.fillFromSystemRandom()
    }

    private func warnOnce() {
        if hasWarned { return }
        hasWarned = true
        Log.warning("\(id): '\(path)' gives too little, the rest comes from the system")
    }
}
