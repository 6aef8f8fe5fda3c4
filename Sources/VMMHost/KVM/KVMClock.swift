#if arch(x86_64)
    import CVMMLinux
    import Glibc

    // What the guest reads the time from (KVM api 4.29, 4.30, 4.57, and "vcpu devices").

    extension KVMVirtualMachine {
        /// The paravirtual clock, in nanoseconds.
        package func clock() throws(HostError) -> UInt64 {
            var data = kvm_clock_data()
            guard descriptor.ioctl(VMM_KVM_GET_CLOCK, with: &data) == 0 else {
                throw .last("read the guest's clock")
            }
            return data.clock
        }

        /// Lets the paravirtual clock go on from `nanoseconds`.
        package func setClock(_ nanoseconds: UInt64) throws(HostError) {
            var data = kvm_clock_data()
            data.clock = nanoseconds
            guard descriptor.ioctl(VMM_KVM_SET_CLOCK, with: &data) == 0 else {
                throw .last("set the guest's clock")
            }
        }
    }

    extension KVMVirtualCPU {
        /// The host's time stamp counter.
        package static var hostTimeStamp: UInt64 { vmm_time_stamp() }

        /// Tells the guest that it stood still, so that its watchdogs do not take that for a
        /// lockup. Does nothing to a guest without the paravirtual clock.
        package func noteStandstill() {
            _ = descriptor.ioctl(VMM_KVM_KVMCLOCK_CTRL)
        }

        /// Takes `ticks` off the guest's time stamp counter. False where KVM cannot (before Linux
        /// 5.16): the counter jumps ahead then.
        package func turnBackTimeStamp(by ticks: UInt64) -> Bool {
            var offset: UInt64 = 0
            guard accessOffset(VMM_KVM_GET_DEVICE_ATTR, &offset) else { return false }
            offset &-= ticks
            return accessOffset(VMM_KVM_SET_DEVICE_ATTR, &offset)
        }

        private func accessOffset(_ request: vmm_ioctl, _ offset: inout UInt64) -> Bool {
            // SAFETY: KVM reads or writes 64 bits at the address, which lives for the call.
            unsafe withUnsafeMutablePointer(to: &offset) { pointer in
                var attribute = kvm_device_attr()
                attribute.group = UInt32(KVM_VCPU_TSC_CTRL)
                attribute.attr = UInt64(KVM_VCPU_TSC_OFFSET)
                attribute.addr = UInt64(UInt(bitPattern: pointer))
                return descriptor.ioctl(request, with: &attribute) == 0
            }
        }
    }
#endif
