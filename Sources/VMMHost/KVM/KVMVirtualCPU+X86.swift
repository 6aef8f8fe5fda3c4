#if arch(x86_64)
    import CVMMLinux
    import Glibc

    /// One segment register as KVM takes it, hidden parts included.
    package struct KVMSegment: Sendable {
        package var base: UInt64 = 0
        package var limit: UInt32 = 0
        package var selector: UInt16 = 0
        /// Descriptor type, 4 bits.
        package var type: UInt8 = 0
        package var present: Bool = true
        package var privilege: UInt8 = 0
        package var is32Bit: Bool = false
        package var isCodeOrData: Bool = false
        package var isLong: Bool = false
        package var isPageGranular: Bool = false

        package init() {}

        var raw: kvm_segment {
            kvm_segment(
                base: base, limit: limit, selector: selector, type: type,
                present: present ? 1 : 0, dpl: privilege, db: is32Bit ? 1 : 0,
                s: isCodeOrData ? 1 : 0, l: isLong ? 1 : 0, g: isPageGranular ? 1 : 0, avl: 0,
                unusable: present ? 0 : 1, padding: 0)
        }
    }

    /// The registers a vCPU starts with; the rest keeps its reset value.
    package struct KVMBootState: Sendable {
        package var rip: UInt64 = 0
        package var rsp: UInt64 = 0
        package var rbx: UInt64 = 0
        package var rsi: UInt64 = 0
        package var rflags: UInt64 = 2
        package var cr0: UInt64 = 0
        package var cr4: UInt64 = 0
        package var code = KVMSegment()
        package var data = KVMSegment()
        package var task = KVMSegment()
        package var gdt: (base: UInt64, limit: UInt16) = (0, 0)
        package var idt: (base: UInt64, limit: UInt16) = (0, 0)
        package var fcw: UInt16 = 0
        package var mxcsr: UInt32 = 0

        package init() {}
    }

    /// One result of the CPUID instruction.
    package struct KVMCPUIDEntry: Sendable {
        package var leaf: UInt32
        package var subleaf: UInt32
        package var isIndexed: Bool
        package var eax: UInt32
        package var ebx: UInt32
        package var ecx: UInt32
        package var edx: UInt32

        package init(
            leaf: UInt32, subleaf: UInt32, isIndexed: Bool,
            registers: (eax: UInt32, ebx: UInt32, ecx: UInt32, edx: UInt32)
        ) {
            self.leaf = leaf
            self.subleaf = subleaf
            self.isIndexed = isIndexed
            (eax, ebx, ecx, edx) = registers
        }

        /// What this host's CPU answers.
        package static func host(leaf: UInt32, subleaf: UInt32) -> KVMCPUIDEntry {
            var out: [UInt32] = [0, 0, 0, 0]
            unsafe vmm_cpuid(leaf, subleaf, &out)
            return KVMCPUIDEntry(
                leaf: leaf, subleaf: subleaf, isIndexed: false,
                registers: (out[0], out[1], out[2], out[3]))
        }
    }

    extension KVMSystem {
        /// The CPUID results that KVM can give a guest here (KVM api 4.46).
        package func supportedCPUID() throws(HostError) -> [KVMCPUIDEntry] {
            // 256 entries: KVM's own limit (KVM_MAX_CPUID_ENTRIES).
            let table = CPUIDTable(capacity: 256)
            guard table.call(descriptor, VMM_KVM_GET_SUPPORTED_CPUID) == 0 else {
                throw .last("read the CPUID that KVM supports")
            }
            return table.entries
        }
    }

    extension KVMVirtualCPU {
        package func setCPUID(_ entries: [KVMCPUIDEntry]) throws(HostError) {
            let table = CPUIDTable(capacity: entries.count)
            table.entries = entries
            guard table.call(descriptor, VMM_KVM_SET_CPUID2) == 0 else {
                throw .last("set the CPUID of vCPU \(id)")
            }
        }

        package func setMSRs(_ values: [(index: UInt32, value: UInt64)]) throws(HostError) {
            let header = MemoryLayout<kvm_msrs>.size
            let stride = MemoryLayout<kvm_msr_entry>.stride
            let buffer = UnsafeMutableRawBufferPointer.allocate(
                byteCount: header + stride * values.count, alignment: 8)
            defer { unsafe buffer.deallocate() }
            unsafe buffer.storeBytes(
                of: (UInt32(values.count), UInt32(0)), as: (UInt32, UInt32).self)
            for (index, value) in values.enumerated() {
                let entry = kvm_msr_entry(index: value.index, reserved: 0, data: value.value)
                // SAFETY: the buffer was made for header and values.count entries.
                unsafe buffer.storeBytes(
                    of: entry, toByteOffset: header + stride * index, as: kvm_msr_entry.self)
            }
            // SAFETY: the kernel reads nmsrs entries, all of which are there.
            let done = retryingInterrupts {
                unsafe vmm_ioctl_pointer(descriptor.rawValue, VMM_KVM_SET_MSRS, buffer.baseAddress)
            }
            if done >= 0, Int(done) < values.count {
                let refused = String(values[Int(done)].index, radix: 16)
                throw HostError("set MSR 0x\(refused) of vCPU \(id)", code: EINVAL)
            }
            guard done >= 0 else { throw .last("set the MSRs of vCPU \(id)") }
        }

        /// The TSC frequency of this vCPU in kHz; nil where KVM does not know it.
        package var tscKHz: UInt32? {
            let value = descriptor.ioctl(VMM_KVM_GET_TSC_KHZ)
            return value > 0 ? UInt32(value) : nil
        }

        /// Loads general, segment, control and floating-point registers.
        package func load(_ state: KVMBootState) throws(HostError) {
            var special = kvm_sregs()
            guard descriptor.ioctl(VMM_KVM_GET_SREGS, with: &special) == 0 else {
                throw .last("read the registers of vCPU \(id)")
            }
            special.cs = state.code.raw
            special.ds = state.data.raw
            special.es = state.data.raw
            special.fs = state.data.raw
            special.gs = state.data.raw
            special.ss = state.data.raw
            special.tr = state.task.raw
            special.gdt.base = state.gdt.base
            special.gdt.limit = state.gdt.limit
            special.idt.base = state.idt.base
            special.idt.limit = state.idt.limit
            special.cr0 = state.cr0
            special.cr4 = state.cr4
            var general = kvm_regs()
            general.rip = state.rip
            general.rsp = state.rsp
            general.rbx = state.rbx
            general.rsi = state.rsi
            general.rflags = state.rflags
            var floating = kvm_fpu()
            floating.fcw = state.fcw
            floating.mxcsr = state.mxcsr
            guard descriptor.ioctl(VMM_KVM_SET_SREGS, with: &special) == 0,
                descriptor.ioctl(VMM_KVM_SET_REGS, with: &general) == 0,
                descriptor.ioctl(VMM_KVM_SET_FPU, with: &floating) == 0
            else { throw .last("set the registers of vCPU \(id)") }
        }

        /// Sets the x2APIC bit of the APIC base, needed for ids above 254.
        package func enableX2APIC() throws(HostError) {
            var special = kvm_sregs()
            guard descriptor.ioctl(VMM_KVM_GET_SREGS, with: &special) == 0 else {
                throw .last("read the registers of vCPU \(id)")
            }
            special.apic_base |= 1 << 10
            guard descriptor.ioctl(VMM_KVM_SET_SREGS, with: &special) == 0 else {
                throw .last("set the registers of vCPU \(id)")
            }
        }

        /// Sets 32-bit registers of the local APIC by their offset in its page.
        package func setLocalAPIC(
            _ registers: [(offset: Int, value: UInt32)]
        ) throws(HostError) {
            var state = kvm_lapic_state()
            guard descriptor.ioctl(VMM_KVM_GET_LAPIC, with: &state) == 0 else {
                throw .last("read the local APIC of vCPU \(id)")
            }
            unsafe withUnsafeMutableBytes(of: &state.regs) { bytes in
                for register in registers {
                    unsafe bytes.storeBytes(
                        of: register.value, toByteOffset: register.offset, as: UInt32.self)
                }
            }
            guard descriptor.ioctl(VMM_KVM_SET_LAPIC, with: &state) == 0 else {
                throw .last("set the local APIC of vCPU \(id)")
            }
        }

        func registersText() -> String {
            var general = kvm_regs()
            guard descriptor.ioctl(VMM_KVM_GET_REGS, with: &general) == 0 else { return "" }
            return ", rip 0x\(String(general.rip, radix: 16))"
        }
    }

    /// The header-and-entries block that the CPUID ioctls share.
    @safe private final class CPUIDTable {
        private let buffer: UnsafeMutableRawBufferPointer
        private let header = MemoryLayout<kvm_cpuid2>.size
        private let stride = MemoryLayout<kvm_cpuid_entry2>.stride

        init(capacity: Int) {
            unsafe buffer = .allocate(byteCount: header + stride * capacity, alignment: 8)
            unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0)
            unsafe buffer.storeBytes(
                of: (UInt32(capacity), UInt32(0)), as: (UInt32, UInt32).self)
        }

        deinit { unsafe buffer.deallocate() }

        func call(_ descriptor: FileDescriptor, _ request: vmm_ioctl) -> Int32 {
            // SAFETY: the block holds nent entries, which is what the kernel reads or fills.
            unsafe vmm_ioctl_pointer(descriptor.rawValue, request, buffer.baseAddress)
        }

        var entries: [KVMCPUIDEntry] {
            get {
                let count = unsafe Int(buffer.load(as: UInt32.self))
                return (0..<count).map { index in
                    let raw = unsafe buffer.load(
                        fromByteOffset: header + stride * index, as: kvm_cpuid_entry2.self)
                    return KVMCPUIDEntry(
                        leaf: raw.function, subleaf: raw.index, isIndexed: raw.flags & 1 != 0,
                        registers: (raw.eax, raw.ebx, raw.ecx, raw.edx))
                }
            }
            set {
                for (index, entry) in newValue.enumerated() {
                    var raw = kvm_cpuid_entry2()
                    raw.function = entry.leaf
                    raw.index = entry.subleaf
                    raw.flags = entry.isIndexed ? 1 : 0
                    raw.eax = entry.eax
                    raw.ebx = entry.ebx
                    raw.ecx = entry.ecx
                    raw.edx = entry.edx
                    unsafe buffer.storeBytes(
                        of: raw, toByteOffset: header + stride * index, as: kvm_cpuid_entry2.self)
                }
            }
        }
    }

    extension KVMVirtualMachine {
        /// Reserves the three pages that Intel's virtualisation needs in guest space.
        package func reserve(tss: UInt64, identityMap: UInt64) throws(HostError) {
            var address = identityMap
            guard descriptor.ioctl(VMM_KVM_SET_IDENTITY_MAP_ADDR, with: &address) == 0 else {
                throw .last("place KVM's identity map")
            }
            guard descriptor.ioctl(VMM_KVM_SET_TSS_ADDR, tss) == 0 else {
                throw .last("place KVM's task state segment")
            }
        }

        /// Local APICs in the kernel, the IOAPIC here, with `pins` interrupt inputs.
        package func createSplitInterruptController(pins: UInt64) throws(HostError) {
            try enable(KVM_CAP_SPLIT_IRQCHIP, pins)
        }

        /// 32-bit APIC ids, and no quirk that takes id 255 for a broadcast (KVM api 7.8).
        package func enableExtendedAPICIDs() throws(HostError) {
            try enable(
                KVM_CAP_X2APIC_API,
                UInt64(KVM_X2APIC_API_USE_32BIT_IDS)
                    | UInt64(KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK))
        }
    }
#endif
