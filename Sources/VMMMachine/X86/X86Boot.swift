#if arch(x86_64)
    import VMMBase
    import VMMFirmware
    import VMMHost

    /// Firmware's values in KVM's types.
    extension KVMBootState {
        init(_ registers: BootRegisters) {
            self.init()
            rip = registers.rip
            rsp = registers.rsp
            rbx = registers.rbx
            rsi = registers.rsi
            rflags = registers.rflags
            cr0 = registers.cr0
            cr4 = registers.cr4
            code = KVMSegment(registers.code)
            data = KVMSegment(registers.data)
            task = KVMSegment(registers.task)
            gdt = (registers.gdtBase.rawValue, registers.gdtLimit)
            idt = (registers.idtBase.rawValue, registers.idtLimit)
            fcw = BootRegisters.fpuControlWord
            mxcsr = BootRegisters.mxcsr
        }
    }

    extension KVMSegment {
        init(_ segment: SegmentRegister) {
            self.init()
            base = segment.base
            limit = segment.limit
            selector = segment.selector
            type = segment.type
            present = segment.present
            privilege = segment.dpl
            is32Bit = segment.db
            isCodeOrData = segment.s
            isLong = segment.l
            isPageGranular = segment.g
        }
    }

    extension KVMCPUIDEntry {
        init(_ entry: CPUIDEntry) {
            self.init(
                leaf: entry.leaf, subleaf: entry.subleaf, isIndexed: entry.indexed,
                registers: (entry.eax, entry.ebx, entry.ecx, entry.edx))
        }
    }

    extension CPUIDEntry {
        init(_ entry: KVMCPUIDEntry) {
            self.init(
                leaf: entry.leaf, subleaf: entry.isIndexed ? entry.subleaf : nil,
                Answer(eax: entry.eax, ebx: entry.ebx, ecx: entry.ecx, edx: entry.edx))
        }

        /// This host's own answer.
        static func host(_ leaf: UInt32, _ subleaf: UInt32) -> Answer {
            let entry = KVMCPUIDEntry.host(leaf: leaf, subleaf: subleaf)
            return Answer(eax: entry.eax, ebx: entry.ebx, ecx: entry.ecx, edx: entry.edx)
        }
    }

    extension KVMVirtualMachine {
        /// What x86 wants of a machine before its first vCPU.
        func prepareX86() throws(HostError) {
            try reserve(
                tss: GuestMemoryLayout.tss.start.rawValue,
                identityMap: GuestMemoryLayout.identityMap.start.rawValue)
            try createSplitInterruptController(pins: UInt64(InterruptRouter.pinCount))
            // Guests are told that they may address 15-bit APIC ids in messages (CPUID policy).
            try enableExtendedAPICIDs()
        }
    }

    extension KVMVirtualCPU {
        /// CPUID, MSRs and local APIC of any vCPU; `registers` of the one that boots.
        func prepareX86(
            cpuid: [CPUIDEntry], registers: BootRegisters?, needsX2APIC: Bool
        ) throws(HostError) {
            try setCPUID(cpuid.map { KVMCPUIDEntry($0) })
            try setMSRs(BootMSRs.entries.map { ($0.index, $0.value) })
            if needsX2APIC { try enableX2APIC() }
            // As firmware would wire them: LINT0 takes the 8259, LINT1 NMIs (Intel SDM 3A 11.5.1).
            try setLocalAPIC([BootLocalAPIC.lint0, BootLocalAPIC.lint1])
            if let registers { try load(KVMBootState(registers)) }
        }
    }

    extension MachineOutline {
        /// Some local APIC has an id above 254, which 8 bits do not hold.
        var needsExtendedAPICIDs: Bool {
            topology.apicID(vcpu: UInt32(maximumVCPUs - 1)) > 254
        }
    }

    extension MachineConfiguration.HostLimits {
        /// What this host's CPU and KVM allow.
        package init(_ system: KVMSystem) {
            let leaf: UInt32 = 0x8000_0008
            let highest = KVMCPUIDEntry.host(leaf: 0x8000_0000, subleaf: 0).eax
            let bits = highest >= leaf ? KVMCPUIDEntry.host(leaf: leaf, subleaf: 0).eax & 0xff : 36
            self.init(maximumVCPUs: system.maximumVCPUs, physicalAddressBits: Int(bits))
        }
    }
#endif
