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
            return state.withLock { state in
                defer { state.interruptStatus = 0 }
                return UInt64(state.interruptStatus)
            }
        case VirtIOPCI.deviceConfigurationOffset..<VirtIOPCI.notifyOffset:
            return readDevice(Int(offset - VirtIOPCI.deviceConfigurationOffset), width)
        case VirtIOPCI.vectorTableOffset..<VirtIOPCI.pendingOffset:
            return msix.readTable(offset: offset - VirtIOPCI.vectorTableOffset, width: width)
        case VirtIOPCI.pendingOffset..<VirtIOPCI.pendingOffset + VirtIOPCI.pendingCount:
            return msix.readPending(offset: offset - VirtIOPCI.pendingOffset, width: width)
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
            writeDevice(Int(offset - VirtIOPCI.deviceConfigurationOffset), width, value)
        case VirtIOPCI.notifyOffset..<VirtIOPCI.notifyOffset + VirtIOPCI.notifyCount:
            let index = Int((offset - VirtIOPCI.notifyOffset) / VirtIOPCI.notifyMultiplier)
            if index < doorbells.count { doorbells[index].signal() }
        case VirtIOPCI.vectorTableOffset..<VirtIOPCI.pendingOffset:
            msix.writeTable(
                offset: offset - VirtIOPCI.vectorTableOffset, width: width, value: value)
        default:
            break
        }
    }

    private var isDecoding: Bool {
        state.withLock { $0.pci.barRange(VirtIOPCI.barIndex) != nil }
    }

    // MARK: common configuration (4.1.4.3)

    private func readCommon(_ offset: UInt64, _ width: AccessWidth) -> UInt64 {
        let offered = offeredFeatures
        return state.withLock { state in
            // Read as bytes of one image, so that every width and offset has a defined answer.
            let image = Self.commonImage(&state, offered: offered)
            let start = Int(offset)
            return (0..<width.byteCount).reduce(UInt64(0)) { value, index in
                let byte = start + index < image.count ? image[start + index] : 0
                return value | UInt64(byte) << UInt64(8 * index)
            }
        }
    }

    private static func commonImage(_ state: inout State, offered: UInt64) -> [UInt8] {
        let queue =
            state.queues.indices.contains(Int(state.queueSelect))
            ? state.queues[Int(state.queueSelect)] : nil
        var image = ByteBuilder()
        image.append(state.deviceFeatureSelect)
        image.append(Self.word(offered, state.deviceFeatureSelect))
        image.append(state.driverFeatureSelect)
        image.append(Self.word(state.driverFeatures, state.driverFeatureSelect))
        image.append(state.configurationVector)
        image.append(UInt16(state.queues.count))
        image.append(state.status)
        image.append(state.generation)
        image.append(state.queueSelect)
        image.append(queue?.layout.size ?? 0)
        image.append(queue?.vector ?? MSIX.noVector)
        image.append(UInt16(queue?.isEnabled == true ? 1 : 0))
        image.append(queue == nil ? 0 : state.queueSelect)
        image.append(queue?.layout.descriptors.rawValue ?? 0)
        image.append(queue?.layout.driverArea.rawValue ?? 0)
        image.append(queue?.layout.deviceArea.rawValue ?? 0)
        return image.bytes
    }

    private static func word(_ features: UInt64, _ select: UInt32) -> UInt32 {
        select < 2 ? UInt32(truncatingIfNeeded: features >> (32 * UInt64(select))) : 0
    }

    /// What a write leads to on the loop.
    private enum Consequence {
        case none
        case activate(DeviceWorker.Activation)
        case reset
    }

    private func writeCommon(_ offset: UInt64, _ width: AccessWidth, _ value: UInt64) {
        if width == .quadWord {
            writeCommon(offset, .doubleWord, value & 0xffff_ffff)
            writeCommon(offset + 4, .doubleWord, value >> 32)
            return
        }
        let isActivated = state.withLock { state in
            guard state.phase != .resetting else { return false }
            switch apply(offset, width, value, &state) {
            case .none: return false
            case .activate(let activation):
                postActivation(activation)
                return true
            case .reset:
                postReset()
                return false
            }
        }
        if isActivated { connectDoorbells() }
    }

    private func apply(
        _ offset: UInt64, _ width: AccessWidth, _ value: UInt64, _ state: inout State
    ) -> Consequence {
        let half = UInt16(truncatingIfNeeded: value)
        let word = UInt32(truncatingIfNeeded: value)
        switch (offset, width) {
        case (0x00, .doubleWord): state.deviceFeatureSelect = word
        case (0x08, .doubleWord): state.driverFeatureSelect = word
        case (0x0c, .doubleWord): setFeatures(word, &state)
        case (0x10, .word): state.configurationVector = checkedVector(half)
        case (0x14, .byte): return setStatus(UInt8(truncatingIfNeeded: value), &state)
        case (0x16, .word): state.queueSelect = half
        default: applyToQueue(offset, width, word, &state)
        }
        return .none
    }

    private func setFeatures(_ word: UInt32, _ state: inout State) {
        guard state.status & VirtIOPCI.Status.featuresOK == 0 else { return }
        guard state.driverFeatureSelect < 2 else {
            // Nothing is offered there; what the driver took nevertheless fails FEATURES_OK.
            if word != 0 { state.hasForeignFeatures = true }
            return
        }
        let shift = 32 * UInt64(state.driverFeatureSelect)
        state.driverFeatures =
            state.driverFeatures & ~(0xffff_ffff << shift) | UInt64(word) << shift
    }

    /// A vector that does not exist reads back as "none", as the driver is told to expect.
    private func checkedVector(_ vector: UInt16) -> UInt16 {
        Int(vector) < msix.vectorCount ? vector : MSIX.noVector
    }

    private func applyToQueue(
        _ offset: UInt64, _ width: AccessWidth, _ value: UInt32, _ state: inout State
    ) {
        let index = Int(state.queueSelect)
        guard index < state.queues.count else { return }
        let half = UInt16(truncatingIfNeeded: value)
        if (offset, width) == (0x1a, .word) {
            state.queues[index].vector = checkedVector(half)
            return
        }
        guard !state.queues[index].isEnabled else { return }
        switch (offset, width) {
        case (0x18, .word) where half <= queueSizes[index]: state.queues[index].layout.size = half
        case (0x1c, .word): state.queues[index].isEnabled = half == 1
        case (0x20, .doubleWord), (0x24, .doubleWord):
            Self.set(&state.queues[index].layout.descriptors, value, high: offset == 0x24)
        case (0x28, .doubleWord), (0x2c, .doubleWord):
            Self.set(&state.queues[index].layout.driverArea, value, high: offset == 0x2c)
        case (0x30, .doubleWord), (0x34, .doubleWord):
            Self.set(&state.queues[index].layout.deviceArea, value, high: offset == 0x34)
        default: break
        }
    }

    private static func set(_ address: inout GuestAddress, _ word: UInt32, high: Bool) {
        let old = address.rawValue
        address = GuestAddress(
            high ? old & 0xffff_ffff | UInt64(word) << 32 : old & ~0xffff_ffff | UInt64(word))
    }

    private func setStatus(_ value: UInt8, _ state: inout State) -> Consequence {
        if value == 0 {
            guard state.phase == .active else {
                state.resetDevice(queueSizes: queueSizes)
                return .none
            }
            state.phase = .resetting
            return .reset
        }
        // Bits are only ever added; the device alone sets NEEDS_RESET.
        var status = state.status | (value & ~VirtIOPCI.Status.needsReset)
        let acceptable =
            !state.hasForeignFeatures && state.driverFeatures & ~offeredFeatures == 0
            && state.driverFeatures & Feature.version1 != 0
        if status & VirtIOPCI.Status.featuresOK != 0, !acceptable {
            status &= ~VirtIOPCI.Status.featuresOK
        }
        let starts =
            status & VirtIOPCI.Status.driverOK != 0 && state.phase == .idle
            && status & VirtIOPCI.Status.featuresOK != 0
        state.status = status
        guard starts else { return .none }
        state.phase = .active
        // A write from now on is one to the active device: it gets a message behind activation.
        state.coversWrites = false
        return .activate(
            DeviceWorker.Activation(
                layouts: state.queues.map { $0.isEnabled ? $0.layout : nil },
                interrupts: state.queues.map { VectorInterrupt(msix: msix, vector: $0.vector) },
                features: state.driverFeatures))
    }

    // MARK: device configuration (4.1.4.6)

    private func readDevice(_ start: Int, _ width: AccessWidth) -> UInt64 {
        state.withLock { state in
            if state.hasUnreadChange {
                state.hasUnreadChange = false
                state.generation &+= 1
            }
            return (0..<width.byteCount).reduce(UInt64(0)) { value, index in
                let position = start + index
                let byte = position < state.configuration.count ? state.configuration[position] : 0
                return value | UInt64(byte) << UInt64(8 * index)
            }
        }
    }

    private func writeDevice(_ start: Int, _ width: AccessWidth, _ value: UInt64) {
        let writable = writableConfiguration
        let isFirst = state.withLock { state -> Bool in
            var isChanged = false
            for index in 0..<width.byteCount where writable.contains(start + index) {
                state.configuration[start + index] =
                    UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
                isChanged = true
            }
            // One message for any number of writes: a guest cannot make the loop's queue grow.
            guard isChanged, !state.coversWrites else { return false }
            state.postedWrites += 1
            state.coversWrites = true
            return true
        }
        if isFirst { configurationWritten() }
    }
}
