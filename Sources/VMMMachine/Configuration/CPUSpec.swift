import VMMBase

/// `--cpus`.
package struct CPUSpec: Decodable, Sendable {
    package static let option = "--cpus"
    package static var fields: [OptionField] {
        [
            OptionField(
                "boot", "<n>", "vCPUs that the guest starts with", default: "1",
                json: ("boot_vcpus", nil)
            ).within(counts),
            OptionField(
                "max", "<n>", "vCPUs that it may ever have", default: "boot",
                json: ("max_vcpus", nil)
            ).within(counts),
            OptionField(
                "max_phys_bits", "<n>", "width of guest-physical addresses at most", default: "46"
            ).within(addressBits),
            OptionField("nested", "on|off", "the guest may run virtual machines", default: "on"),
            OptionField(
                "core_scheduling", "vm|vcpu|off",
                "who shares a core's hyperthreads: the machine's threads alone, or no vCPU",
                default: CoreScheduling.machine.rawValue,
                json: (nil, .choice([("vm", "Vm"), ("vcpu", "Vcpu"), ("off", "Off")]))),
        ]
    }

    /// Below 36 bits no x86-64 CPU exists; above 52 the page tables end.
    static let addressBits: ClosedRange<UInt8> = 36...52
    /// An APIC id has room for this many vCPUs in one package.
    static let packageLimit = 32768
    private static let counts = 1...UInt32(packageLimit)

    package var boot: UInt32? = nil
    package var maximum: UInt32? = nil
    package var maximumPhysicalBits: UInt8? = nil
    package var allowsNesting: Bool? = nil
    package var coreScheduling: CoreScheduling? = nil

    /// What the kernel may run side by side on the hyperthreads of one core, which see much of each
    /// other's work. Without hyperthreads there is nothing to choose.
    package enum CoreScheduling: String, OptionChoice, Decodable, Sendable {
        /// The monitor's own threads.
        case machine = "vm"
        /// Each vCPU has a core to itself.
        case processor = "vcpu"
        case off
    }

    package init() {}

    private enum CodingKeys: String, CodingKey {
        case boot
        case maximum = "max"
        case maximumPhysicalBits = "max_phys_bits"
        case allowsNesting = "nested"
        case coreScheduling = "core_scheduling"
    }

    /// `hostMaximum`: the most vCPUs that KVM gives one machine here.
    package func problems(hostMaximum: Int) -> [ConfigurationProblem] {
        let hostMaximum = min(hostMaximum, Self.packageLimit)
        let boot = boot ?? 1
        let maximum = maximum ?? boot
        var problems: [ConfigurationProblem] = []
        func add(_ key: String, _ value: some BinaryInteger, _ reason: String) {
            problems.append(
                ConfigurationProblem(
                    option: "\(Self.option) \(key)", value: "\(value)", reason: reason))
        }
        if boot == 0 { add("boot", boot, "at least 1") }
        if Int(boot) > hostMaximum { add("boot", boot, "at most \(hostMaximum) on this host") }
        if maximum < boot {
            add("max", maximum, "at least boot, which is \(boot)")
        } else if self.maximum != nil, Int(maximum) > hostMaximum {
            add("max", maximum, "at most \(hostMaximum) on this host")
        }
        if let bits = maximumPhysicalBits, !Self.addressBits.contains(bits) {
            add("max_phys_bits", bits, "expected 36 to 52")
        }
        return problems
    }
}
