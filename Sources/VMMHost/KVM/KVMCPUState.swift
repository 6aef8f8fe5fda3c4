#if arch(x86_64)
    import CVMMLinux
    import Glibc

    /// The registers by which a debugger knows where a vCPU is.
    package struct KVMCPUState: Sendable {
        /// A segment register with its hidden part.
        package struct Segment: Sendable {
            package var selector: UInt16 = 0
            package var base: UInt64 = 0
            package var limit: UInt32 = 0
            /// As in the second half of a descriptor: type from bit 8 on, present bit 15,
            /// granularity bit 23 (Intel SDM 3A, 3.4.5).
            package var attributes: UInt32 = 0

            package init() {}

            init(_ raw: kvm_segment) {
                selector = raw.selector
                base = raw.base
                limit = raw.limit
                let low = UInt32(raw.type) << 8 | UInt32(raw.s) << 12 | UInt32(raw.dpl) << 13
                let high = UInt32(raw.avl) << 20 | UInt32(raw.l) << 21 | UInt32(raw.db) << 22
                attributes = low | UInt32(raw.present) << 15 | high | UInt32(raw.g) << 23
            }

            init(_ raw: kvm_dtable) {
                base = raw.base
                limit = UInt32(raw.limit)
            }
        }

        package var rax: UInt64 = 0
        package var rbx: UInt64 = 0
        package var rcx: UInt64 = 0
        package var rdx: UInt64 = 0
        package var rsi: UInt64 = 0
        package var rdi: UInt64 = 0
        package var rsp: UInt64 = 0
        package var rbp: UInt64 = 0
        /// r8 to r15.
        package var extended: [UInt64] = Array(repeating: 0, count: 8)
        package var rip: UInt64 = 0
        package var rflags: UInt64 = 0
        package var code = Segment()
        package var data = Segment()
        package var extra = Segment()
        package var fs = Segment()
        package var gs = Segment()
        package var stack = Segment()
        package var localTable = Segment()
        package var task = Segment()
        package var globalTable = Segment()
        package var interruptTable = Segment()
        /// cr0 to cr4; there is no cr1.
        package var control: [UInt64] = Array(repeating: 0, count: 5)
        /// What the kernel has in gs while a program runs, and the other way round.
        package var kernelGSBase: UInt64 = 0

        package init() {}
    }

    extension KVMVirtualCPU {
        /// IA32_KERNEL_GS_BASE.
        private static let kernelGSBase: UInt32 = 0xc000_0102

        /// The registers of a vCPU that stands still.
        package func state() throws(HostError) -> KVMCPUState {
            var general = kvm_regs()
            var special = kvm_sregs()
            guard descriptor.ioctl(VMM_KVM_GET_REGS, with: &general) == 0,
                descriptor.ioctl(VMM_KVM_GET_SREGS, with: &special) == 0
            else { throw .last("read the registers of vCPU \(id)") }
            var state = KVMCPUState()
            state.take(general)
            state.take(special)
            state.kernelGSBase = try readMSR(Self.kernelGSBase)
            return state
        }

        private func readMSR(_ index: UInt32) throws(HostError) -> UInt64 {
            var block = vmm_one_msr()
            block.count = 1
            block.entry.index = index
            guard descriptor.ioctl(VMM_KVM_GET_MSRS, with: &block) == 1 else {
                throw .last("read MSR 0x\(String(index, radix: 16)) of vCPU \(id)")
            }
            return block.entry.data
        }
    }

    extension KVMCPUState {
        fileprivate mutating func take(_ raw: kvm_regs) {
            (rax, rbx, rcx, rdx) = (raw.rax, raw.rbx, raw.rcx, raw.rdx)
            (rsi, rdi, rsp, rbp) = (raw.rsi, raw.rdi, raw.rsp, raw.rbp)
            extended = [
                raw.r8, raw.r9, raw.r10, raw.r11, raw.r12, raw.r13, raw.r14, raw.r15,
            ]
            (rip, rflags) = (raw.rip, raw.rflags)
        }

        fileprivate mutating func take(_ raw: kvm_sregs) {
            (code, data, extra) = (Segment(raw.cs), Segment(raw.ds), Segment(raw.es))
            (fs, gs, stack) = (Segment(raw.fs), Segment(raw.gs), Segment(raw.ss))
            (localTable, task) = (Segment(raw.ldt), Segment(raw.tr))
            (globalTable, interruptTable) = (Segment(raw.gdt), Segment(raw.idt))
            control = [raw.cr0, 0, raw.cr2, raw.cr3, raw.cr4]
        }
    }
#endif
