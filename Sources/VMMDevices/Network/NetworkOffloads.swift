import VMMHost

/// Which work the guest and the host may leave to each other.
package struct NetworkOffloads: Equatable, Sendable {
    package var checksum: Bool
    /// TCP segmentation, with congestion notification.
    package var tcp: Bool
    /// UDP fragmentation, which became rare.
    package var udp: Bool
    /// UDP segmentation: what QUIC uses.
    package var udpSegments: Bool

    package init(checksum: Bool, tcp: Bool, udp: Bool, udpSegments: Bool = false) {
        self.checksum = checksum
        self.tcp = tcp
        self.udp = udp
        self.udpSegments = udpSegments
    }

    var features: UInt64 {
        var features: UInt64 = 0
        if checksum { features |= NetworkFeature.checksum | NetworkFeature.guestChecksum }
        if tcp {
            features |= NetworkFeature.hostTCP4 | NetworkFeature.hostTCP6
            features |= NetworkFeature.hostCongestion | NetworkFeature.guestTCP4
            features |= NetworkFeature.guestTCP6 | NetworkFeature.guestCongestion
        }
        if udp { features |= NetworkFeature.hostUDP | NetworkFeature.guestUDP }
        if udpSegments {
            features |= NetworkFeature.hostUDPSegments
            features |= NetworkFeature.guestUDPSegments4 | NetworkFeature.guestUDPSegments6
        }
        // The driver may take its word back while it runs.
        if checksum { features |= NetworkFeature.controlOffloads }
        return features
    }
}

/// Feature bits (VirtIO 1.3, 5.1.3).
enum NetworkFeature {
    static let checksum: UInt64 = 1 << 0
    static let guestChecksum: UInt64 = 1 << 1
    static let controlOffloads: UInt64 = 1 << 2
    static let mtu: UInt64 = 1 << 3
    static let mac: UInt64 = 1 << 5
    static let guestTCP4: UInt64 = 1 << 7
    static let guestTCP6: UInt64 = 1 << 8
    static let guestCongestion: UInt64 = 1 << 9
    static let guestUDP: UInt64 = 1 << 10
    static let hostTCP4: UInt64 = 1 << 11
    static let hostTCP6: UInt64 = 1 << 12
    static let hostCongestion: UInt64 = 1 << 13
    static let hostUDP: UInt64 = 1 << 14
    static let mergeableBuffers: UInt64 = 1 << 15
    static let status: UInt64 = 1 << 16
    static let controlQueue: UInt64 = 1 << 17
    static let announce: UInt64 = 1 << 21
    static let multiqueue: UInt64 = 1 << 22
    static let guestUDPSegments4: UInt64 = 1 << 54
    static let guestUDPSegments6: UInt64 = 1 << 55
    static let hostUDPSegments: UInt64 = 1 << 56

    /// With any of these a received frame may be 64 KiB long.
    static let guestLargeFrames =
        guestTCP4 | guestTCP6 | guestUDP | guestUDPSegments4 | guestUDPSegments6
    /// What `GUEST_OFFLOADS_SET` may switch (5.1.6.5.6).
    static let switchable = guestChecksum | guestCongestion | guestLargeFrames

    /// What the host may leave undone in frames to a driver with these features.
    static func offloads(_ features: UInt64) -> TapInterface.Offloads {
        var accepted: TapInterface.Offloads = []
        if features & guestChecksum != 0 { accepted.insert(.checksum) }
        if features & guestTCP4 != 0 { accepted.insert(.tcp4) }
        if features & guestTCP6 != 0 { accepted.insert(.tcp6) }
        if features & guestCongestion != 0 { accepted.insert(.congestion) }
        if features & guestUDP != 0 { accepted.insert(.udp) }
        if features & guestUDPSegments4 != 0 { accepted.insert(.udpSegments4) }
        if features & guestUDPSegments6 != 0 { accepted.insert(.udpSegments6) }
        return accepted
    }
}
