import VMMBase
import VMMHost
import VMMTestSupport

/// One thing that a driver does to a virtio device through its transport.
enum DriverStep: UInt8, CaseIterable {
    case write, read, status, start, ring, memory, settle

    /// Does what the input says next.
    static func take(from input: inout FuzzInput, _ rig: TransportRig) {
        switch allCases[Int(input.next(UInt8.self)) % allCases.count] {
        case .write:
            let offset = UInt64(input.next(UInt16.self)) % rig.byteCount
            let width = AccessWidth.allCases[Int(input.next(UInt8.self)) % 4]
            rig.write(offset, width, input.next())
        case .read:
            let offset = UInt64(input.next(UInt16.self)) % rig.byteCount
            _ = rig.read(offset, AccessWidth.allCases[Int(input.next(UInt8.self)) % 4])
        case .status: rig.setStatus(UInt64(input.next(UInt8.self)))
        case .start:
            let isWild = input.next(UInt8.self) & 1 != 0
            rig.start(isWild ? input.next() : rig.features, size: input.next())
        case .ring: rig.ring(Int(input.next(UInt8.self)))
        case .memory:
            let address = UInt64(input.next(UInt16.self))
            _ = rig.memory.copyIn(
                input.take(Int(input.next(UInt8.self))), at: GuestAddress(address))
        case .settle: rig.settle()
        }
    }
}
