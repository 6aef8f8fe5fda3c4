import CVMMLinux
import Glibc
import Synchronization
import VMMBase

/// One virtual CPU. `run` and the data calls belong to the vCPU's own thread; `kick` may come
/// from any. Register calls are for a vCPU that does not run.
@safe package final class KVMVirtualCPU: @unchecked Sendable {
    // SAFETY (@unchecked Sendable): the run structure is used by the vCPU's thread alone, but for
    // the one byte that `kick` stores atomically; `thread` is atomic.
    package let id: UInt32
    let descriptor: FileDescriptor
    private let run: UnsafeMutablePointer<kvm_run>
    private let mapping: Mapping
    private let thread = Atomic<Int64>(0)

    init(id: UInt32, descriptor: FileDescriptor, run mapping: Mapping) {
        self.id = id
        self.descriptor = descriptor
        self.mapping = mapping
        // SAFETY: KVM maps one kvm_run at the start of a vCPU's descriptor (KVM api 4.5).
        unsafe self.run = mapping.base.assumingMemoryBound(to: kvm_run.self)
    }

    /// Why the vCPU came back, with all that is needed to answer it.
    package enum Exit: Sendable {
        /// `count` accesses of `width` to one port (string instructions repeat); values are at
        /// `portValue` and are answered by `setPortValue`.
        case portRead(port: UInt16, width: AccessWidth, count: Int)
        case portWrite(port: UInt16, width: AccessWidth, count: Int)
        /// 1 to 8 bytes; answered by `completeRead`.
        case memoryRead(address: GuestAddress, byteCount: Int)
        case memoryWrite(address: GuestAddress, value: UInt64, byteCount: Int)
        /// The local APIC got an end-of-interrupt for a vector that the IOAPIC routes.
        case endOfInterrupt(vector: UInt8)
        case interrupted
        case tripleFault
        /// The guest asked KVM itself for a reset, or told it of a crash.
        case reset
        /// The guest asked KVM itself to power off.
        case powerOff
        /// KVM cannot go on with this guest, for what it did; a sentence for the log.
        case crashed(String)
        /// KVM cannot go on; a sentence for the log.
        case failed(String)
    }

    /// Notes the calling thread as the one that `kick` has to interrupt.
    package func adoptCurrentThread() {
        thread.store(vmm_thread_id(), ordering: .releasing)
    }

    /// Makes the current or next `run` return `.interrupted` as soon as the last exit's data has
    /// been delivered. Any thread.
    package func kick() {
        unsafe vmm_kvm_set_immediate_exit(run, 1)
        let target = thread.load(ordering: .acquiring)
        if target != 0 { _ = vmm_thread_kill(target, ProcessSignals.kickSignal) }
    }

    /// Forgets a kick that has been noticed.
    package func clearKick() {
        unsafe vmm_kvm_set_immediate_exit(run, 0)
    }

    /// Enters the guest until the next exit.
    package func enter() -> Exit {
        // SAFETY: KVM_RUN takes no argument; the run structure is this thread's.
        let result = vmm_ioctl_value(descriptor.rawValue, VMM_KVM_RUN, 0)
        if result != 0 {
            let code = errno
            if code == EINTR || code == EAGAIN { return .interrupted }
            return .failed(HostError("run vCPU \(id)", code: code).description)
        }
        return decodeExit()
    }

    private func decodeExit() -> Exit {
        switch unsafe Int32(run.pointee.exit_reason) {
        case KVM_EXIT_IO: return decodePort()
        case KVM_EXIT_MMIO: return decodeMemory()
        case KVM_EXIT_IOAPIC_EOI: return unsafe .endOfInterrupt(vector: run.pointee.eoi.vector)
        case KVM_EXIT_INTR: return .interrupted
        case KVM_EXIT_SHUTDOWN: return .tripleFault
        case KVM_EXIT_SYSTEM_EVENT:
            let type = unsafe run.pointee.system_event.type
            return type == UInt32(KVM_SYSTEM_EVENT_SHUTDOWN) ? .powerOff : .reset
        case KVM_EXIT_FAIL_ENTRY:
            let reason = unsafe run.pointee.fail_entry.hardware_entry_failure_reason
            return .crashed(
                "KVM could not enter the guest (hardware reason 0x\(String(reason, radix: 16)))")
        case KVM_EXIT_INTERNAL_ERROR:
            let error = unsafe run.pointee.internal
            return .crashed("KVM internal error, suberror \(error.suberror)" + registersText())
        case let other: return .crashed("unexpected KVM exit \(other)")
        }
    }

    private func decodePort() -> Exit {
        let io = unsafe run.pointee.io
        guard let width = AccessWidth(rawValue: io.size) else {
            return .crashed("a port access of \(io.size) bytes")
        }
        return Int32(io.direction) == KVM_EXIT_IO_IN
            ? .portRead(port: io.port, width: width, count: Int(io.count))
            : .portWrite(port: io.port, width: width, count: Int(io.count))
    }

    private func decodeMemory() -> Exit {
        let mmio = unsafe run.pointee.mmio
        let address = GuestAddress(mmio.phys_addr)
        let count = min(8, Int(mmio.len))
        if mmio.is_write == 0 { return .memoryRead(address: address, byteCount: count) }
        var value: UInt64 = 0
        unsafe withUnsafeBytes(of: mmio.data) { bytes in
            for index in 0..<count { unsafe value |= UInt64(bytes[index]) << UInt64(8 * index) }
        }
        return .memoryWrite(address: address, value: value, byteCount: count)
    }

    /// Answers `.memoryRead`.
    package func completeRead(_ value: UInt64) {
        unsafe withUnsafeMutableBytes(of: &run.pointee.mmio.data) { bytes in
            for index in 0..<8 {
                unsafe bytes[index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
            }
        }
    }

    /// The value of repetition `index` of `.portWrite`.
    package func portValue(_ index: Int, _ width: AccessWidth) -> UInt64 {
        guard let pointer = unsafe portData(index, width) else { return 0 }
        switch width {
        case .byte: return unsafe UInt64(vmm_load_8(pointer))
        case .word: return unsafe UInt64(vmm_load_16(pointer))
        case .doubleWord: return unsafe UInt64(vmm_load_32(pointer))
        case .quadWord: return unsafe vmm_load_64(pointer)
        }
    }

    /// Answers repetition `index` of `.portRead`.
    package func setPortValue(_ value: UInt64, _ index: Int, _ width: AccessWidth) {
        guard let pointer = unsafe portData(index, width) else { return }
        switch width {
        case .byte: unsafe vmm_store_8(pointer, UInt8(truncatingIfNeeded: value))
        case .word: unsafe vmm_store_16(pointer, UInt16(truncatingIfNeeded: value))
        case .doubleWord: unsafe vmm_store_32(pointer, UInt32(truncatingIfNeeded: value))
        case .quadWord: unsafe vmm_store_64(pointer, value)
        }
    }

    private func portData(_ index: Int, _ width: AccessWidth) -> UnsafeMutableRawPointer? {
        let offset = unsafe Int(clamping: run.pointee.io.data_offset)
        let end = offset + (index + 1) * width.byteCount
        guard index >= 0, end <= mapping.count else { return nil }
        // SAFETY: the access ends inside the mapping.
        return unsafe mapping.base + offset + index * width.byteCount
    }
}
