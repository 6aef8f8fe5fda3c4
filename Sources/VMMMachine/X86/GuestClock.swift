#if arch(x86_64)
    import VMMBase
    import VMMHost

    /// The clocks of a guest that stands still: they go on where they stopped, so that to the
    /// guest no time has passed. Its wall clock is late afterwards, by as much as it stood still.
    struct GuestClock {
        private let vm: KVMVirtualMachine
        private let vcpus: [KVMVirtualCPU]
        private let nanoseconds: UInt64?
        private let timeStamp: UInt64

        /// Reads the clocks. The vCPUs do not run, from now until `start`.
        init(_ vm: KVMVirtualMachine, _ vcpus: [KVMVirtualCPU]) {
            self.vm = vm
            self.vcpus = vcpus
            nanoseconds = try? vm.clock()
            timeStamp = KVMVirtualCPU.hostTimeStamp
        }

        /// Sets the clocks to what they were.
        func start() {
            // The same for all, or their counters would not agree any more.
            let ticks = KVMVirtualCPU.hostTimeStamp &- timeStamp
            for vcpu in vcpus where !vcpu.turnBackTimeStamp(by: ticks) {
                Log.debug("vCPU \(vcpu.id): its time stamp counter was not set back")
            }
            do throws(HostError) {
                if let nanoseconds { try vm.setClock(nanoseconds) }
            } catch {
                Log.warning("the guest's clock jumps: \(error)")
            }
            for vcpu in vcpus { vcpu.noteStandstill() }
        }
    }
#endif
