import Synchronization
import VMMBase
import VMMBus
import VMMHost

/// The structures inside the BAR (VirtIO 1.3, 4.1.4). vCPU threads.
extension VirtIOPCITransport: BusDevice {
    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard isDecoding else { return width.allOnes }
        switch offset {
        case ..<VirtIOPCI.commonCount:
            return readCommon(offset, width)
        case VirtIOPCI.interruptStatusOffset:
            return UInt64(wiring.takeInterruptStatus())
        case VirtIOPCI.deviceConfigurationOffset..<VirtIOPCI.notifyOffset:
            return control.readConfiguration(
                at: Int(offset - VirtIOPCI.deviceConfigurationOffset), width)
        case VirtIOPCI.vectorTableOffset..<VirtIOPCI.pendingOffset:
            return wiring.msix.readTable(
                offset: offset - VirtIOPCI.vectorTableOffset, width: width)
        case VirtIOPCI.pendingOffset..<VirtIOPCI.pendingOffset + VirtIOPCI.pendingCount:
            return wiring.msix.readPending(offset: offset - VirtIOPCI.pendingOffset, width: width)
        default:
            return 0
        }
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard isDecoding else { return }
        switch offset {
        case ..<VirtIOPCI.commonCount:
            writeCommon(offset, width, value)
        case VirtIOPCI.deviceConfigurationOffset..<VirtIOPCI.notifyOffset:
            control.writeConfiguration(
                at: Int(offset - VirtIOPCI.deviceConfigurationOffset), width, value)
        case VirtIOPCI.notifyOffset..<VirtIOPCI.notifyOffset + VirtIOPCI.notifyCount:
            control.ring(Int((offset - VirtIOPCI.notifyOffset) / VirtIOPCI.notifyMultiplier))
        case VirtIOPCI.vectorTableOffset..<VirtIOPCI.pendingOffset:
            wiring.msix.writeTable(
                offset: offset - VirtIOPCI.vectorTableOffset, width: width, value: value)
        default:
            break
        }
    }

    private var isDecoding: Bool {
        space.withLock { $0.barRange(VirtIOPCI.barIndex) != nil }
    }

    // MARK: common configuration (4.1.4.3)

    private func readCommon(_ offset: UInt64, _ width: AccessWidth) -> UInt64 {
        // Read as bytes of one image, so that every width and offset has a defined answer.
        let image = control.facilities.withLock { Self.commonImage($0) }
        let start = Int(offset)
        return (0..<width.byteCount).reduce(UInt64(0)) { value, index in
            let byte = start + index < image.count ? image[start + index] : 0
            return value | UInt64(byte) << UInt64(8 * index)
        }
    }

    private static func commonImage(_ facilities: borrowing BasicFacilities) -> [UInt8] {
        let queue = facilities.selectedQueue
        let select = UInt16(truncatingIfNeeded: facilities.queueSelect)
        var image = ByteBuilder()
        image.append(facilities.deviceFeatureSelect)
        image.append(facilities.deviceFeatureWord)
        image.append(facilities.driverFeatureSelect)
        image.append(facilities.driverFeatureWord)
        image.append(facilities.configurationVector)
        image.append(UInt16(facilities.queues.count))
        image.append(facilities.status)
        image.append(facilities.generation)
        image.append(select)
        image.append(queue?.layout.size ?? 0)
        image.append(queue?.vector ?? MSIX.noVector)
        image.append(UInt16(queue?.isEnabled == true ? 1 : 0))
        image.append(queue == nil ? 0 : select)
        image.append(queue?.layout.descriptors.rawValue ?? 0)
        image.append(queue?.layout.driverArea.rawValue ?? 0)
        image.append(queue?.layout.deviceArea.rawValue ?? 0)
        // Data for doorbells, where they carry some: ours do not.
        image.append(UInt16(0))
        image.append(UInt16(queue?.isResetting == true ? 1 : 0))
        return image.bytes
    }

    private func writeCommon(_ offset: UInt64, _ width: AccessWidth, _ value: UInt64) {
        if width == .quadWord {
            writeCommon(offset, .doubleWord, value & 0xffff_ffff)
            writeCommon(offset + 4, .doubleWord, value >> 32)
            return
        }
        control.change { facilities in
            let word = UInt32(truncatingIfNeeded: value)
            switch (offset, width) {
            case (0x14, .byte): return facilities.setStatus(UInt8(truncatingIfNeeded: word))
            case (0x1c, .word) where word & 0xffff == 1: return facilities.enableQueue()
            case (0x3a, .word) where word & 0xffff == 1: return facilities.resetQueue()
            default: apply(offset, width, word, &facilities)
            }
            return .none
        }
    }

    private func apply(
        _ offset: UInt64, _ width: AccessWidth, _ word: UInt32, _ facilities: inout BasicFacilities
    ) {
        let half = UInt16(truncatingIfNeeded: word)
        let isHigh = offset & 4 != 0
        switch (offset, width) {
        case (0x00, .doubleWord): facilities.deviceFeatureSelect = word
        case (0x08, .doubleWord): facilities.driverFeatureSelect = word
        case (0x0c, .doubleWord): facilities.setDriverFeatures(word)
        case (0x10, .word): facilities.configurationVector = checkedVector(half)
        case (0x16, .word): facilities.queueSelect = UInt32(half)
        case (0x18, .word): facilities.setQueueSize(UInt32(half))
        case (0x1a, .word): facilities.setQueueVector(checkedVector(half))
        case (0x20, .doubleWord), (0x24, .doubleWord):
            facilities.changeQueue {
                BasicFacilities.set(&$0.layout.descriptors, word, high: isHigh)
            }
        case (0x28, .doubleWord), (0x2c, .doubleWord):
            facilities.changeQueue {
                BasicFacilities.set(&$0.layout.driverArea, word, high: isHigh)
            }
        case (0x30, .doubleWord), (0x34, .doubleWord):
            facilities.changeQueue {
                BasicFacilities.set(&$0.layout.deviceArea, word, high: isHigh)
            }
        default: break
        }
    }

    /// A vector that does not exist reads back as "none", as the driver is told to expect.
    private func checkedVector(_ vector: UInt16) -> UInt16 {
        Int(vector) < wiring.msix.vectorCount ? vector : MSIX.noVector
    }
}
