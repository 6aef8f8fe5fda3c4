import Synchronization
import VMMBase
import VMMBus

/// How an ACPI guest learns which PCI devices have come, which are to go, and gives those back
/// (`reference/cloud-hypervisor.md` 4.7): four 32-bit registers, for one segment at a time, a bit
/// for each device number. The generic event device tells the guest to look. Any thread.
package final class PCIHotplugController: BusDevice {
    /// Bytes of memory-mapped registers.
    package static let byteCount: UInt64 = 16

    private enum Register {
        /// Devices that have come since the last look; reading clears.
        static let up: UInt64 = 0
        /// Devices that are to go, as far as the guest has not been told; reading clears.
        static let down: UInt64 = 4
        /// Written by a guest that has let go of devices.
        static let eject: UInt64 = 8
        /// Which segment the others are about.
        static let segment: UInt64 = 12
    }

    private struct Segment {
        var up: UInt32 = 0
        var down: UInt32 = 0
        /// Whose removal was asked for. The guest can give back these and no others.
        var leaving: UInt32 = 0
    }

    private struct State {
        var segments: [Segment]
        var selected = 0
    }

    private let state: Mutex<State>
    private let ejected: @Sendable (PCIAddress) -> Void

    /// `ejected` is told of each device that the guest has given back, on the vCPU's thread and
    /// without locks.
    package init(segmentCount: Int, ejected: @escaping @Sendable (PCIAddress) -> Void) {
        state = Mutex(State(segments: Array(repeating: Segment(), count: segmentCount)))
        self.ejected = ejected
    }

    /// A device has come. The guest still has to be told to look. A wish that the one before it
    /// should go, said again after the guest had given that back, is not about this one.
    package func add(_ address: PCIAddress) {
        change(address) { segment, bit in
            segment.up |= bit
            segment.down &= ~bit
            segment.leaving &= ~bit
        }
    }

    /// A device is to go; also said again, to a guest that did not listen. The guest still has to
    /// be told to look.
    package func requestRemoval(of address: PCIAddress) {
        change(address) { segment, bit in
            segment.down |= bit
            segment.leaving |= bit
        }
    }

    private func change(_ address: PCIAddress, _ body: (inout Segment, UInt32) -> Void) {
        state.withLock { state in
            precondition(
                state.segments.indices.contains(Int(address.segment)) && address.device < 32,
                "the machine's own devices are on its segments")
            body(&state.segments[Int(address.segment)], 1 << UInt32(address.device))
        }
    }

    // MARK: the guest's side

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard width == .doubleWord else { return width.allOnes }
        return state.withLock { state in
            let selected = state.selected
            switch offset {
            case Register.up:
                defer { state.segments[selected].up = 0 }
                return UInt64(state.segments[selected].up)
            case Register.down:
                defer { state.segments[selected].down = 0 }
                return UInt64(state.segments[selected].down)
            case Register.segment: return UInt64(selected)
            default: return 0
            }
        }
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard width == .doubleWord else { return }
        let word = UInt32(truncatingIfNeeded: value)
        switch offset {
        case Register.eject: eject(word)
        case Register.segment:
            state.withLock { state in
                guard word < state.segments.count else { return }
                state.selected = Int(word)
            }
        default: break
        }
    }

    private func eject(_ bits: UInt32) {
        let (number, leaving) = state.withLock { state in
            let leaving = state.segments[state.selected].leaving & bits
            state.segments[state.selected].leaving &= ~leaving
            state.segments[state.selected].up &= ~leaving
            state.segments[state.selected].down &= ~leaving
            return (state.selected, leaving)
        }
        for device in UInt8(0)..<32 where leaving >> UInt32(device) & 1 != 0 {
            ejected(PCIAddress(segment: UInt16(truncatingIfNeeded: number), device: device))
        }
    }
}
