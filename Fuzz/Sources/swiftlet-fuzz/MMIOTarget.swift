import VMMBase
import VMMDevices
import VMMHost
import VMMTestSupport
import VMMVirtIO

/// The input is what a driver does to the registers and the memory of a virtio-mmio device.
enum MMIOTarget: FuzzTarget {
    static let name = "mmio"

    private static let stepLimit = 128

    /// The registers' offsets, and bits of their values.
    static let words =
        [0x14, 0x24, 0x30, 0x38, 0x44, 0x50, 0x64, 0x70, 0x80, 0x90, 0xa0, 0xfc, 0x100].map {
            FuzzInput.bytes(UInt16($0))
        } + [[1], [4], [15]]

    static func seeds() -> [[UInt8]] {
        let start = [DriverStep.start.rawValue, 0, 4, 0]
        let write = [DriverStep.write.rawValue] + FuzzInput.bytes(UInt16(0x70)) + [2]
        return [0, 2, 4, 6].map { [$0] + start + [DriverStep.ring.rawValue, 0] } + [
            start + [
                DriverStep.ring.rawValue, 0, DriverStep.settle.rawValue, DriverStep.status.rawValue,
                0,
            ],
            write + FuzzInput.bytes(UInt64(1)) + start + [DriverStep.ring.rawValue, 0],
        ]
    }

    static func run(_ input: FuzzInput) {
        var input = input
        do {
            let rig = try RigDevice.make(from: &input, on: .mmio)
            defer { rig.end() }
            for _ in 0..<stepLimit where !input.isEmpty { DriverStep.take(from: &input, rig) }
            precondition(rig.revival().isEmpty, "a device works again after a reset")
        } catch {
            return
        }
    }
}
