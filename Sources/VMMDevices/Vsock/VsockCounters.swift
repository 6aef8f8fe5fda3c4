import VMMBase

/// What a vsock device has done since its start.
package struct VsockStatistics: Equatable, Sendable {
    /// Packets for the guest, and their payload.
    package var receivedPackets: UInt64 = 0
    package var receivedBytes: UInt64 = 0
    /// Packets from the guest, and the payload that its host took.
    package var sentPackets: UInt64 = 0
    package var sentBytes: UInt64 = 0
    /// Connections that were established.
    package var connections: UInt64 = 0
    /// Resets that the guest was sent.
    package var resets: UInt64 = 0
    /// Packets of the guest that were ignored: no header, or a wrong address.
    package var dropped: UInt64 = 0
}

/// The counters of a device: written by its thread alone, read by any.
final class VsockCounters: Sendable {
    let receivedPackets = Counter()
    let receivedBytes = Counter()
    let sentPackets = Counter()
    let sentBytes = Counter()
    let connections = Counter()
    let resets = Counter()
    let dropped = Counter()

    var statistics: VsockStatistics {
        VsockStatistics(
            receivedPackets: receivedPackets.current, receivedBytes: receivedBytes.current,
            sentPackets: sentPackets.current, sentBytes: sentBytes.current,
            connections: connections.current, resets: resets.current, dropped: dropped.current)
    }
}
