import CVMMLinux
import Glibc
import VMMBase

/// One KVM virtual machine: memory slots, interrupt routes, event descriptors. Calls may come
/// from any thread; KVM serialises them.
package final class KVMVirtualMachine: Sendable {
    let descriptor: FileDescriptor
    private let runMappingSize: Int

    init(_ descriptor: FileDescriptor, runMappingSize: Int) {
        self.descriptor = descriptor
        self.runMappingSize = runMappingSize
    }

    /// Gives the guest its RAM, one slot a region. Before the irqchip: afterwards the same call
    /// takes 50 times as long (TESTBED, lesson 1).
    package func attach(_ memory: GuestMemory) throws(HostError) {
        for (index, slot) in memory.slots.enumerated() {
            var region = kvm_userspace_memory_region(
                slot: UInt32(index), flags: 0, guest_phys_addr: slot.range.start.rawValue,
                memory_size: slot.range.count, userspace_addr: slot.hostAddress)
            guard descriptor.ioctl(VMM_KVM_SET_USER_MEMORY_REGION, with: &region) == 0 else {
                throw .last("give the guest its memory", slot.range.description)
            }
        }
    }

    package func enable(_ capability: Int32, _ argument: UInt64) throws(HostError) {
        var request = kvm_enable_cap()
        request.cap = UInt32(capability)
        request.args.0 = argument
        guard descriptor.ioctl(VMM_KVM_ENABLE_CAP, with: &request) == 0 else {
            throw .last("enable KVM capability \(capability)")
        }
    }

    /// Replaces the whole routing table: interrupt number to message (KVM api 4.52).
    package func setRoutes(_ routes: [UInt32: InterruptMessage]) throws(HostError) {
        let header = MemoryLayout<kvm_irq_routing>.size
        let stride = MemoryLayout<kvm_irq_routing_entry>.stride
        let buffer = UnsafeMutableRawBufferPointer.allocate(
            byteCount: header + stride * routes.count, alignment: 8)
        defer { unsafe buffer.deallocate() }
        unsafe buffer.storeBytes(
            of: (UInt32(routes.count), UInt32(0)), as: (UInt32, UInt32).self)
        for (index, route) in routes.enumerated() {
            var entry = kvm_irq_routing_entry()
            entry.gsi = route.key
            entry.type = UInt32(KVM_IRQ_ROUTING_MSI)
            let address = Self.extended(route.value.address)
            unsafe entry.u.msi.address_lo = UInt32(truncatingIfNeeded: address)
            unsafe entry.u.msi.address_hi = UInt32(truncatingIfNeeded: address >> 32)
            unsafe entry.u.msi.data = route.value.data
            // SAFETY: the buffer was made for header and routes.count entries.
            unsafe buffer.storeBytes(
                of: entry, toByteOffset: header + stride * index, as: kvm_irq_routing_entry.self)
        }
        // SAFETY: the kernel reads nr entries, all of which are there.
        let result = retryingInterrupts {
            unsafe vmm_ioctl_pointer(
                descriptor.rawValue, VMM_KVM_SET_GSI_ROUTING, buffer.baseAddress)
        }
        guard result == 0 else { throw .last("route interrupts") }
    }

    /// Makes a signal on `event` raise interrupt number `gsi`.
    package func attach(_ event: EventFD, toInterrupt gsi: UInt32) throws(HostError) {
        try setInterruptEvent(event, gsi, flags: 0)
    }

    package func detach(_ event: EventFD, fromInterrupt gsi: UInt32) throws(HostError) {
        try setInterruptEvent(event, gsi, flags: UInt32(KVM_IRQFD_FLAG_DEASSIGN))
    }

    private func setInterruptEvent(_ event: EventFD, _ gsi: UInt32, flags: UInt32) throws(HostError)
    {
        var request = kvm_irqfd()
        request.fd = UInt32(bitPattern: event.descriptor.rawValue)
        request.gsi = gsi
        request.flags = flags
        guard descriptor.ioctl(VMM_KVM_IRQFD, with: &request) == 0 else {
            throw .last("bind an interrupt to an eventfd")
        }
    }

    /// Makes a guest's write to `address` signal `event` without an exit to us: a write of any
    /// width and value, or of these 32 bits.
    package func attach(
        _ event: EventFD, toWritesAt address: GuestAddress, of value: UInt32? = nil
    ) throws(HostError) {
        try setWriteEvent(event, address, value, flags: 0)
    }

    package func detach(
        _ event: EventFD, fromWritesAt address: GuestAddress, of value: UInt32? = nil
    ) throws(HostError) {
        try setWriteEvent(event, address, value, flags: 1 << UInt32(kvm_ioeventfd_flag_nr_deassign))
    }

    private func setWriteEvent(
        _ event: EventFD, _ address: GuestAddress, _ value: UInt32?, flags: UInt32
    ) throws(HostError) {
        let match: UInt32 = value == nil ? 0 : 1 << UInt32(kvm_ioeventfd_flag_nr_datamatch)
        var request = kvm_ioeventfd()
        request.addr = address.rawValue
        request.len = value == nil ? 0 : 4
        request.datamatch = UInt64(value ?? 0)
        request.fd = event.descriptor.rawValue
        request.flags = flags | match
        guard descriptor.ioctl(VMM_KVM_IOEVENTFD, with: &request) == 0 else {
            throw .last("bind a doorbell to an eventfd")
        }
    }

    /// Delivers `message` now (KVM api 4.70). A guest that masked it is no error.
    package func signal(_ message: InterruptMessage) {
        var request = kvm_msi()
        let address = Self.extended(message.address)
        request.address_lo = UInt32(truncatingIfNeeded: address)
        request.address_hi = UInt32(truncatingIfNeeded: address >> 32)
        request.data = message.data
        _ = descriptor.ioctl(VMM_KVM_SIGNAL_MSI, with: &request)
    }

    /// Guests that were told of KVM_FEATURE_MSI_EXT_DEST_ID put bits 8 to 14 of the APIC id into
    /// bits 5 to 11 of the address; KVM takes them from bit 40 on (KVM api 4.70, 7.8).
    static func extended(_ address: UInt64) -> UInt64 {
        let high: UInt64 = 0xfe0
        return address & ~high | (address & high) << 35
    }

    /// A vCPU whose APIC id is `id`.
    package func makeVirtualCPU(id: UInt32) throws(HostError) -> KVMVirtualCPU {
        let raw = descriptor.ioctl(VMM_KVM_CREATE_VCPU, UInt64(id))
        guard raw >= 0 else { throw .last("create vCPU \(id)") }
        let file = FileDescriptor(owning: raw)
        return KVMVirtualCPU(
            id: id, descriptor: file, run: try Mapping(shared: file, count: runMappingSize))
    }
}
