import CVMMLinux

/// The numbers of the requests (ioctl) that this module makes, by who makes them and what for: what
/// a sandbox has to know of them.
package enum DeviceRequests {
    /// A vCPU's thread; the first is the one that counts for speed.
    package static var processor: [UInt32] {
        numbers(
            VMM_KVM_RUN, VMM_KVM_SIGNAL_MSI, VMM_KVM_IRQFD, VMM_KVM_IOEVENTFD,
            VMM_KVM_SET_GSI_ROUTING,
            VMM_KVM_GET_REGS, VMM_KVM_GET_SREGS)
    }
    /// Interrupts and doorbells, from a thread that serves devices.
    package static var interrupts: [UInt32] {
        numbers(
            VMM_KVM_SIGNAL_MSI, VMM_KVM_IRQFD, VMM_KVM_IOEVENTFD, VMM_KVM_SET_GSI_ROUTING)
    }
    /// What makes a machine, and stops and starts its clocks.
    package static var machine: [UInt32] {
        numbers(
            VMM_KVM_GET_API_VERSION, VMM_KVM_GET_VCPU_MMAP_SIZE, VMM_KVM_CHECK_EXTENSION,
            VMM_KVM_CREATE_VM, VMM_KVM_CREATE_VCPU, VMM_KVM_SET_USER_MEMORY_REGION,
            VMM_KVM_SET_TSS_ADDR, VMM_KVM_SET_IDENTITY_MAP_ADDR, VMM_KVM_ENABLE_CAP,
            VMM_KVM_GET_SUPPORTED_CPUID, VMM_KVM_SET_CPUID2, VMM_KVM_SET_MSRS, VMM_KVM_SET_REGS,
            VMM_KVM_SET_SREGS, VMM_KVM_SET_FPU, VMM_KVM_GET_REGS,
            VMM_KVM_GET_SREGS, VMM_KVM_GET_MSRS, VMM_KVM_GET_LAPIC, VMM_KVM_SET_LAPIC,
            VMM_KVM_GET_TSC_KHZ, VMM_KVM_GET_VCPU_EVENTS, VMM_KVM_GET_CLOCK, VMM_KVM_SET_CLOCK,
            VMM_KVM_KVMCLOCK_CTRL, VMM_KVM_GET_DEVICE_ATTR, VMM_KVM_SET_DEVICE_ATTR)
    }
    /// A tap that is served.
    package static var tap: [UInt32] { numbers(VMM_TUNSETOFFLOAD, VMM_TUNSETQUEUE) }
    /// A tap that is opened.
    package static var tapOpening: [UInt32] {
        numbers(
            VMM_TUNSETIFF, VMM_TUNGETIFF, VMM_TUNGETFEATURES, VMM_TUNSETVNETHDRSZ, VMM_SIOCSIFADDR,
            VMM_SIOCSIFNETMASK, VMM_SIOCSIFHWADDR, VMM_SIOCGIFHWADDR, VMM_SIOCGIFFLAGS,
            VMM_SIOCSIFFLAGS, VMM_SIOCSIFMTU, VMM_SIOCGIFMTU, VMM_SIOCGIFINDEX)
    }
    /// The size of a block device, and of its blocks.
    package static var blockDevice: [UInt32] {
        numbers(
            VMM_BLKGETSIZE64, VMM_BLKSSZGET, VMM_BLKPBSZGET)
    }
    /// A terminal's size and settings, as asked for.
    package static var terminal: [UInt32] { numbers(VMM_TIOCGWINSZ, VMM_TCGETS) }
    /// What gives a terminal its settings back, on whatever thread the process ends. glibc looks at
    /// what it has set.
    package static var terminalRestoring: [UInt32] { numbers(VMM_TCSETS, VMM_TCGETS) }
    /// What makes a pseudo-terminal: its number and its lock.
    package static var terminalMaking: [UInt32] {
        numbers(
            VMM_TIOCGPTN, VMM_TIOCSPTLCK, VMM_TIOCGPTPEER, VMM_TIOCGPGRP)
    }
    /// How much a socket's peer has not read.
    package static var socket: [UInt32] { numbers(VMM_FIONREAD) }

    private static func numbers(_ requests: vmm_ioctl...) -> [UInt32] {
        requests.map { UInt32(truncatingIfNeeded: $0.rawValue) }
    }
}
