#if arch(x86_64)
    import VMMBase
    import VMMHost

    /// A guest that stands still, on its way to a file. Any thread may write it, for as long as
    /// the guest stands still.
    struct CoreDump: Sendable {
        private let memory: GuestMemory
        private let layout: CoreDumpLayout

        /// Reads the registers of vCPUs that do not run.
        init(_ memory: GuestMemory, _ vcpus: [KVMVirtualCPU]) throws(HostError) {
            self.memory = memory
            layout = CoreDumpLayout(
                memory.ranges, try vcpus.map { vcpu throws(HostError) in try vcpu.state() })
        }

        /// Writes a new file; blocks. One that cannot be finished, or is not wanted any more, is
        /// taken away again.
        func write(to path: String, while goesOn: () -> Bool) throws(HostError) {
            let file = try FileDescriptor.open(path, [.writeOnly, .create, .exclusive])
            do throws(HostError) {
                try file.resize(to: layout.byteCount)
                try file.write(layout.head.span, at: 0)
                for segment in layout.segments {
                    try memory.save(
                        segment.range, to: file, at: segment.fileOffset, while: goesOn)
                }
            } catch {
                FileDescriptor.removeFile(path)
                throw HostError(error.operation, path, code: error.code)
            }
        }
    }
#endif
