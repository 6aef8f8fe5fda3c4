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
        var pause = InputPause()

        var count: Int { bytes.count - first }
    }

    private let channel: any ByteChannel
    private let state = Mutex(State())

    init(channel: any ByteChannel) {
        self.channel = channel
    }

    var count: Int { state.withLock { $0.count } }

    func append(_ bytes: [UInt8]) {
        let tellsChannel = state.withLock { state in
            state.bytes.append(contentsOf: bytes.prefix(max(0, Self.limit - state.count)))
            state.pause.set(state.count > Self.threshold)
            return state.pause.beginTelling()
        }
        if tellsChannel { tellChannel() }
    }

    private func tellChannel() {
        while let isPaused = state.withLock({ $0.pause.next() }) {
            channel.setInputPaused(isPaused)
        }
    }

    /// Takes up to `maximum` of the oldest bytes.
    func take(_ maximum: Int) -> [UInt8] {
        let (taken, tellsChannel) = state.withLock { state -> ([UInt8], Bool) in
            let taken = Array(state.bytes[state.first...].prefix(max(0, maximum)))
            state.first += taken.count
            if state.count == 0 || state.first > Self.limit {
                state.bytes.removeFirst(state.first)
                state.first = 0
            }
            state.pause.set(state.count > Self.threshold)
            return (taken, state.pause.beginTelling())
        }
        if tellsChannel { tellChannel() }
        return taken
    }
}
