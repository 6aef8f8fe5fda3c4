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
                leaf: entry.leaf, subleaf: entry.subleaf, indexed: entry.isIndexed,
                Answer(eax: entry.eax, ebx: entry.ebx, ecx: entry.ecx, edx: entry.edx))
        }

        /// This host's own answer.
        static func host(_ leaf: UInt32, _ subleaf: UInt32) -> Answer {
            let entry = KVMCPUIDEntry.host(leaf: leaf, subleaf: subleaf)
            return Answer(eax: entry.eax, ebx: entry.ebx, ecx: entry.ecx, edx: entry.edx)
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
