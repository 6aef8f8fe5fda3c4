import Synchronization
import VMMHost

/// Input that waits for the guest. Pauses its channel when the guest does not take it, so that
/// the host's side waits instead of this process growing. Any thread.
final class InputBuffer: Sendable {
    /// Above this many bytes the channel pauses, at or below it goes on: a page of pasted text.
    static let threshold = 4096
    /// What is kept at most. A channel delivers 4096 bytes at a time and none while paused, so
    /// only one that breaks that rule loses anything.
    static let limit = 64 << 10

    private struct State {
        var bytes: [UInt8] = []
        var first = 0
        var isPaused = false

        var count: Int { bytes.count - first }
    }

    private let channel: any ByteChannel
    private let state = Mutex(State())

    init(channel: any ByteChannel) {
        self.channel = channel
    }

    var count: Int { state.withLock { $0.count } }

    func append(_ bytes: [UInt8]) {
        let pauses = state.withLock { state in
            state.bytes.append(contentsOf: bytes.prefix(max(0, Self.limit - state.count)))
            guard !state.isPaused, state.count > Self.threshold else { return false }
            state.isPaused = true
            return true
        }
        if pauses { channel.setInputPaused(true) }
    }

    /// Takes up to `maximum` of the oldest bytes.
    func take(_ maximum: Int) -> [UInt8] {
        let (taken, resumes) = state.withLock { state -> ([UInt8], Bool) in
            let taken = Array(state.bytes[state.first...].prefix(max(0, maximum)))
            state.first += taken.count
            if state.count == 0 || state.first > Self.limit {
                state.bytes.removeFirst(state.first)
                state.first = 0
            }
            guard state.isPaused, state.count <= Self.threshold else { return (taken, false) }
            state.isPaused = false
            return (taken, true)
        }
        if resumes { channel.setInputPaused(false) }
        return taken
    }
}
