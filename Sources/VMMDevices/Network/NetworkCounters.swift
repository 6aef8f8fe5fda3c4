import VMMBase

/// What a network device has done since its start; the guest's view of the direction.
package struct NetworkStatistics: Equatable, Sendable {
    package var receivedFrames: UInt64 = 0
    package var receivedBytes: UInt64 = 0
    package var sentFrames: UInt64 = 0
    package var sentBytes: UInt64 = 0
    /// By what carries the frames, in either direction.
    package var droppedFrames: UInt64 = 0
}

/// Frames and their bytes, without the virtio header, in one direction of one pair of queues:
/// written by its thread alone, read by any.
final class FrameCounter: Sendable {
    let frames = Counter()
    let bytes = Counter()

    func count(byteCount: UInt64) {
        frames.add()
        bytes.add(byteCount)
    }
}
