import VMMMachine

/// The input is a command line of `swiftlet-vmm`, a word a line.
enum OptionTarget: FuzzTarget {
    static let name = "options"

    private static let lines = [
        "--kernel /k --cpus boot=2,max=4,max_phys_bits=40,core_scheduling=vcpu --memory size=1G",
        "--kernel=/k --memory size=512M --disk path=/a,readonly=on path=/b,id=x,pci_device_id=7",
        "--kernel /k --disk path=\"/a,b\",num_queues=4,queue_size=256,rate_limit_group=g",
        "--kernel /k --disk path=/q,image_type=qcow2,backing_files=on,queue_affinity=[0@[1,2-3]]",
        "--kernel /k --rate-limit-group id=g,bw_size=1M,bw_refill_time=100,ops_size=9",
        "--kernel /k --net tap=t,mac=02:00:00:00:00:01,ip=10.0.0.1,mask=255.0.0.0,mtu=1500",
        "--kernel /k --net backend=user,forward=[tcp:8080:80,udp:53:53] backend=socket,path=/s",
        "--kernel /k --net fd=[3,4],num_queues=4,offload_tso=off,vnet_hdr=on,mode=server",
        "--kernel /k --vsock cid=3,socket=/v --pci-segment pci_segment=1,mmio32_aperture_weight=2",
        "--kernel /k --landlock on --landlock-rules path=/a,access=rw --seccomp log",
        "--kernel /k --serial tty --console off --rng src=/dev/urandom,pci_device_id=9 -vv",
        "--kernel /k --serial socket=/s --console file=/c --debug-console pty --pvpanic",
        "--kernel /k --watchdog --event-monitor path=/e --api-socket path=/a --no-shutdown",
        "--kernel /k --cmdline acpi=off --initramfs /i --log-file /l --help --version",
        "--kernel /k --platform transport=mmio,ring=packed,num_pci_segments=2 --rng src=/r",
        "--cpus boot=1,nested=off,features=amx",
    ]

    static let words =
        ["[", "]", "\"", "\"\"", ",", "=", "@", "-", "K", "M", "G", "18446744073709551615"]
        .map { Array($0.utf8) }
        + Set(lines.flatMap { $0.split { " =,".contains($0) } }).sorted()
        .map { Array($0.utf8) }

    static func seeds() -> [[UInt8]] {
        lines.map { Array($0.replacing(" ", with: "\n").utf8) }
    }

    static func run(_ input: FuzzInput) {
        var input = input
        let limits = MachineConfiguration.HostLimits(
            maximumVCPUs: 64, physicalAddressBits: Int(input.next(UInt8.self)))
        let words = String(decoding: input.takeAll(), as: UTF8.self)
            .split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        do {
            _ = try CommandLineArguments(words).configuration.validate(limits)
        } catch {
            // The sentences for the user are made of the same bytes.
            _ = error.description
        }
    }
}
