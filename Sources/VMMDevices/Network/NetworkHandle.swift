import VMMBase
import VMMNetwork
import VMMVirtIO

/// A network device's counters.
struct NetworkHandle: DeviceHandle {
    let received: [FrameCounter]
    let sent: [FrameCounter]
    let losses: [FrameLosses]

    var statistics: NetworkStatistics {
        NetworkStatistics(
            receivedFrames: received.reduce(0) { $0 &+ $1.frames.current },
            receivedBytes: received.reduce(0) { $0 &+ $1.bytes.current },
            sentFrames: sent.reduce(0) { $0 &+ $1.frames.current },
            sentBytes: sent.reduce(0) { $0 &+ $1.bytes.current },
            droppedFrames: losses.reduce(0) { $0 &+ $1.count })
    }

    var counters: [(name: String, value: UInt64)] {
        let all = statistics
        return [
            ("rx_bytes", all.receivedBytes), ("rx_frames", all.receivedFrames),
            ("tx_bytes", all.sentBytes), ("tx_frames", all.sentFrames),
            ("dropped_frames", all.droppedFrames),
        ]
    }
}
