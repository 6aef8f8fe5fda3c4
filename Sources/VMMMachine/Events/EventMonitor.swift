import Synchronization
import VMMBase
import VMMHost

/// Tells the world outside what happens to the machine: one JSON object after the other, in Cloud
/// Hypervisor's words and format. Nothing ever waits for a reader: what the stream does not take
/// is kept up to a limit, and then whole records are lost, and counted. Any thread.
package final class EventMonitor: Sendable {
    /// Who says it.
    package enum Source: String, Sendable {
        case vmm, vm, guest
        case virtIODevice = "virtio-device"
    }

    package enum Event: String, Sendable {
        case starting, ready, booting, booted, rebooting, rebooted, shutdown, deleted
        case pausing, paused, resuming, resumed, coredumping
        case activated, reset
        case deviceRemoved = "device-removed"
        /// Of a guest: its kernel panics.
        case panic
        /// Cloud Hypervisor has no word for these, nor for `ready`, when the API is served, or a
        /// guest is up: the guest fell silent; the machine ended, for that `reason`; a `request`
        /// was not carried out, for that `reason`; the reader missed `count` records before this
        /// one, or the rest, for that `reason`.
        case watchdog, failed, error, lost
    }

    /// Takes a record as a line of JSON, without its end. Called on the thread that tells it, and
    /// must neither wait nor tell anything itself.
    package typealias Listener = @Sendable ([UInt8]) -> Void

    private struct State {
        var pending: [UInt8] = []
        var lost = 0
        /// What the guest caused too much of, since the last record that listeners got.
        var skipped = 0
        var listeners: [UInt64: Listener] = [:]
        var nextName: UInt64 = 0
    }

    /// Clients that want to know what happens are a few; each has a backlog.
    private static let listenerLimit = 16

    /// What a late reader finds, in bytes: a machine has some dozens of events in its life.
    private static let limit = 256 << 10
    /// A guest may reset its devices, and itself, without end: ten records a second are all that
    /// it may cause for long.
    private static let guestBucket = RateLimiter.Bucket(size: 1000, refillMilliseconds: 100_000)
    /// How long a slow reader of the last events may make no progress, in milliseconds.
    private static let patience: Int32 = 1000

    /// Writable when a reader that was late takes more.
    var descriptor: FileDescriptor? { stream?.descriptor }
    private let stream: ByteStream?
    private let clock: any HostClock
    private let start: UInt64
    private let guestLimiter: RateLimiter
    private let state = Mutex(State())

    /// Writes to `stream`, which never waits; without one, only listeners hear of anything.
    package init(_ stream: ByteStream?, clock: any HostClock) {
        self.stream = stream
        self.clock = clock
        start = clock.monotonicNanoseconds()
        guestLimiter = RateLimiter(bytes: nil, operations: Self.guestBucket, clock: clock)
    }

    /// Writes a record. What the guest causes pays for it; what the host asked for is always told.
    package func tell(
        _ source: Source, _ event: Event, _ properties: [(name: String, value: String)] = [],
        causedByGuest: Bool = false
    ) {
        let pays = causedByGuest || source == .virtIODevice || source == .guest
        let isAllowed = !pays || guestLimiter.admit(byteCount: 0) == 0
        guard isAllowed else {
            return state.withLock { state in
                state.lost += 1
                state.skipped += 1
            }
        }
        let record = record(source, event, properties)
        if stream != nil {
            state.withLock { write(record.text(isIndented: true) + Self.blankLine, &$0) }
        }
        let (listeners, skipped) = state.withLock { state in
            defer { state.skipped = 0 }
            return (state.listeners, state.skipped)
        }
        for (_, listener) in listeners {
            if skipped > 0 { listener(line(.vmm, .lost, [("count", "\(skipped)")])) }
            listener(record.text())
        }
    }

    private static let blankLine = [UInt8](repeating: UInt8(ascii: "\n"), count: 2)

    private func write(_ text: [UInt8], _ state: inout State) {
        flush(&state)
        if state.lost > 0, state.pending.count + text.count <= Self.limit {
            let lost = record(.vmm, .lost, [("count", "\(state.lost)")])
            state.pending += lost.text(isIndented: true) + Self.blankLine
            state.lost = 0
        }
        if state.pending.count + text.count <= Self.limit {
            state.pending += text
        } else {
            state.lost += 1
        }
        flush(&state)
    }

    // MARK: listeners

    /// Calls `listener` with what is told from now on. The name is for `unsubscribe`; nil when
    /// there are too many already.
    package func subscribe(_ listener: @escaping Listener) -> UInt64? {
        state.withLock { state in
            guard state.listeners.count < Self.listenerLimit else { return nil }
            defer { state.nextName += 1 }
            state.listeners[state.nextName] = listener
            return state.nextName
        }
    }

    /// Forgets a listener; a record that is being told at the moment may still reach it.
    package func unsubscribe(_ name: UInt64) {
        state.withLock { _ = $0.listeners.removeValue(forKey: name) }
    }

    /// A record for one reader alone, as listeners get it.
    package func line(
        _ source: Source, _ event: Event, _ properties: [(name: String, value: String)]
    ) -> [UInt8] {
        record(source, event, properties).text()
    }

    // MARK: the stream

    /// Writes what waits, as far as the reader takes it.
    func flush() { state.withLock { flush(&$0) } }

    private func flush(_ state: inout State) {
        guard let stream else { return }
        var sent = 0
        while sent < state.pending.count {
            switch stream.write(state.pending, from: sent) {
            case .moved(let count): sent += count
            case .wouldBlock:
                return state.pending.removeFirst(sent)
            case .endOfFile, .failed:
                // Nobody reads any more, or the disk is full.
                return state.pending.removeAll()
            }
        }
        state.pending.removeAll()
    }

    /// Gives a slow reader time for the last records. When nothing more is told.
    package func finish() {
        guard let descriptor else { return }
        var isWaiting = true
        while isWaiting {
            let before = state.withLock { $0.pending.count }
            flush()
            let after = state.withLock { $0.pending.count }
            isWaiting =
                after > 0 && after < before
                || after > 0 && descriptor.isReady(.writable, waitingMilliseconds: Self.patience)
        }
    }

    /// As long as the monitor has run, who, what, and about whom.
    private func record(
        _ source: Source, _ event: Event, _ properties: [(name: String, value: String)]
    ) -> JSONValue {
        let elapsed = clock.monotonicNanoseconds() &- start
        let (seconds, nanoseconds) = elapsed.quotientAndRemainder(dividingBy: 1_000_000_000)
        let members = properties.map { JSONValue.Member($0.name, .string($0.value)) }
        return [
            "timestamp": ["secs": .number("\(seconds)"), "nanos": .number("\(nanoseconds)")],
            "source": .string(source.rawValue), "event": .string(event.rawValue),
            "properties": members.isEmpty ? .null : .object(members),
        ]
    }
}
