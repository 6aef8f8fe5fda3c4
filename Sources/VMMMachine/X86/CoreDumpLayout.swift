#if arch(x86_64)
    import VMMBase
    import VMMHost

    /// An ELF core of a whole machine, as `gdb` and `crash` read it: one segment for each range of
    /// RAM, by guest-physical addresses, and what each vCPU had in its registers.
    struct CoreDumpLayout: Sendable {
        /// A range of RAM, and where it stands in the file.
        struct Segment: Sendable {
            let range: GuestRange
            let fileOffset: UInt64
        }

        /// All that stands in front of the memory.
        let head: [UInt8]
        let segments: [Segment]
        /// The size of the whole file.
        let byteCount: UInt64

        private static let headerBytes = 64
        private static let programHeaderBytes = 56
        /// Segments begin at pages, so that a file system shares none between two.
        private static let alignment: UInt64 = 4096

        init(_ ranges: [GuestRange], _ vcpus: [KVMCPUState]) {
            var notes = ByteBuilder()
            for (index, vcpu) in vcpus.enumerated() {
                Self.append(Self.threadStatus(vcpu, index), "CORE", type: 1, to: &notes)
            }
            for vcpu in vcpus { Self.append(Self.machineState(vcpu), "QEMU", type: 0, to: &notes) }

            let notesStart = Self.headerBytes + Self.programHeaderBytes * (1 + ranges.count)
            let headBytes = UInt64(notesStart + notes.count)
            var offset = (headBytes + Self.alignment - 1) / Self.alignment * Self.alignment
            var segments: [Segment] = []
            for range in ranges {
                segments.append(Segment(range: range, fileOffset: offset))
                offset += range.count
            }
            var head = Self.header(programHeaders: 1 + ranges.count)
            Self.appendProgramHeader(
                type: 4, offset: UInt64(notesStart), address: 0, count: UInt64(notes.count),
                to: &head)
            for segment in segments {
                Self.appendProgramHeader(
                    type: 1, offset: segment.fileOffset, address: segment.range.start.rawValue,
                    count: segment.range.count, to: &head)
            }
            head.append(bytes: notes.bytes)
            self.head = head.bytes
            self.segments = segments
            byteCount = offset
        }

        /// ELF64, little-endian, a core, of x86-64 (System V ABI, chapter 4).
        private static func header(programHeaders: Int) -> ByteBuilder {
            var head = ByteBuilder([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
            head.appendZeros(9)
            head.append(UInt16(4))
            head.append(UInt16(62))
            head.append(UInt32(1))
            head.append(UInt64(0))
            head.append(UInt64(headerBytes))
            head.append(UInt64(0))
            head.append(UInt32(0))
            head.append(UInt16(headerBytes))
            head.append(UInt16(programHeaderBytes))
            head.append(UInt16(programHeaders))
            // No section headers.
            head.appendZeros(6)
            return head
        }

        /// Guest-physical addresses stand for virtual ones, too, or a debugger would show RAM
        /// nowhere.
        private static func appendProgramHeader(
            type: UInt32, offset: UInt64, address: UInt64, count: UInt64, to head: inout ByteBuilder
        ) {
            head.append(type)
            head.append(UInt32(0))
            for value in [offset, address, address, count, count, 0] { head.append(value) }
        }

        private static func append(
            _ content: ByteBuilder, _ owner: String, type: UInt32, to notes: inout ByteBuilder
        ) {
            let name = Array(owner.utf8) + [0]
            notes.append(UInt32(name.count))
            notes.append(UInt32(content.count))
            notes.append(type)
            notes.append(bytes: name)
            notes.align(to: 4)
            notes.append(bytes: content.bytes)
            notes.align(to: 4)
        }

        /// NT_PRSTATUS: Linux's `struct elf_prstatus`, with a vCPU for a thread.
        private static func threadStatus(_ vcpu: KVMCPUState, _ index: Int) -> ByteBuilder {
            var status = ByteBuilder()
            // No signal; then the ids of the thread and its relatives, and times.
            status.appendZeros(32)
            status.append(UInt32(clamping: index + 1))
            status.appendZeros(12 + 64)
            let r = vcpu.extended
            let registers = [
                r[7], r[6], r[5], r[4], vcpu.rbp, vcpu.rbx, r[3], r[2], r[1], r[0], vcpu.rax,
                vcpu.rcx, vcpu.rdx, vcpu.rsi, vcpu.rdi, vcpu.rax, vcpu.rip,
                UInt64(vcpu.code.selector), vcpu.rflags, vcpu.rsp, UInt64(vcpu.stack.selector),
                vcpu.fs.base, vcpu.gs.base, UInt64(vcpu.data.selector),
                UInt64(vcpu.extra.selector), UInt64(vcpu.fs.selector), UInt64(vcpu.gs.selector),
            ]
            for register in registers { status.append(register) }
            status.appendZeros(8)
            return status
        }

        /// What QEMU tells of a vCPU besides, from which `crash` learns where the kernel is: the
        /// first version of its note, with its last field.
        private static func machineState(_ vcpu: KVMCPUState) -> ByteBuilder {
            var state = ByteBuilder()
            state.append(UInt32(1))
            state.append(UInt32(0))
            let general = [
                vcpu.rax, vcpu.rbx, vcpu.rcx, vcpu.rdx, vcpu.rsi, vcpu.rdi, vcpu.rsp, vcpu.rbp,
            ]
            for register in general + vcpu.extended + [vcpu.rip, vcpu.rflags] {
                state.append(register)
            }
            let segments = [
                vcpu.code, vcpu.data, vcpu.extra, vcpu.fs, vcpu.gs, vcpu.stack, vcpu.localTable,
                vcpu.task, vcpu.globalTable, vcpu.interruptTable,
            ]
            for segment in segments {
                state.append(UInt32(segment.selector))
                state.append(segment.limit)
                state.append(segment.attributes)
                state.append(UInt32(0))
                state.append(segment.base)
            }
            for register in vcpu.control + [vcpu.kernelGSBase] { state.append(register) }
            state.patch(UInt32(state.count), at: 4)
            return state
        }
    }
#endif
