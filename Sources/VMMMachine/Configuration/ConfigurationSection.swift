import VMMBase
import VMMDevices

/// An option with keys and values, and its place in a machine's JSON.
struct ConfigurationSection: Sendable {
    /// As on the command line: `--disk`.
    let option: String
    /// The member of the machine's JSON: `disks`.
    let json: String
    /// One line for the help.
    let summary: String
    /// Given any number of times, and a list in JSON.
    let isList: Bool
    /// Made when somebody asks: few are, and no monitor keeps what only its start needs.
    var fields: [OptionField] { makeFields() }
    private let makeFields: @Sendable () -> [OptionField]
    /// What it is when nobody gives it is told all the same.
    let hasStandard: Bool
    /// A bare word, and true or false in JSON.
    var isFlag = false

    static var all: [ConfigurationSection] {
        [
            ConfigurationSection(
                option: CPUSpec.option, json: "cpus", summary: "The guest's processors",
                isList: false, makeFields: { CPUSpec.fields }, hasStandard: true),
            ConfigurationSection(
                option: MemorySpec.option, json: "memory", summary: "The guest's memory",
                isList: false, makeFields: { MemorySpec.fields }, hasStandard: true),
            ConfigurationSection(
                option: PlatformSpec.option, json: "platform",
                summary: "What all devices are plugged into", isList: false,
                makeFields: { PlatformSpec.fields }, hasStandard: false),
            ConfigurationSection(
                option: PCISegmentSpec.option, json: "pci_segments",
                summary: "How PCI segments share the windows for registers", isList: true,
                makeFields: { PCISegmentSpec.fields }, hasStandard: false),
            ConfigurationSection(
                option: RateLimitGroup.option, json: "rate_limit_groups",
                summary: "A limit that several disks share", isList: true,
                makeFields: { RateLimitGroup.fields }, hasStandard: false),
            ConfigurationSection(
                option: LandlockRule.option, json: "landlock_rules",
                summary: "A file that may be asked for when the monitor is confined",
                isList: true, makeFields: { LandlockRule.fields }, hasStandard: false),
        ]
            + DeviceCatalog.all.map { type in
                ConfigurationSection(
                    option: type.option, json: type.jsonName, summary: type.summary,
                    isList: type.isRepeatable, makeFields: { type.fields },
                    hasStandard: type.standard != nil, isFlag: type.isFlag)
            }
    }

    /// Options that are texts, and where they are in JSON.
    static let payload = [
        (option: "--kernel", json: "kernel"), (option: "--initramfs", json: "initramfs"),
        (option: "--cmdline", json: "cmdline"),
    ]

    /// Cloud Hypervisor's names for what is not there yet. To leave out what somebody asks for
    /// would be worse than to refuse it.
    static let missing: Set<String> = [
        "balloon", "generic_vhost_user", "fs", "pmem", "devices", "user_devices", "vdpa",
        "pvmemcontrol", "iommu", "numa", "rtc", "gdb",
        "tpm", "ivshmem", "firmware", "igvm", "host_data",
        "fw_cfg_config", "topology", "kvm_hyperv", "affinity", "features", "mergeable",
        "hotplug_size", "hotplugged_size", "shared", "hugepages", "hugepage_size", "prefault",
        "reserve", "zones", "vhost_user", "vhost_socket", "iommu_segments",
        "serial_number", "uuid", "oem_strings", "tdx", "sev_snp", "iommufd", "iommufd_fd",
        "system_manufacturer", "system_product_name", "system_version", "system_serial_number",
        "system_uuid", "system_sku_number", "system_family", "chassis_asset_tag",
    ]

    /// What `problem` is about, as a path in JSON: `disks[0].path`.
    static func path(_ problem: ConfigurationProblem) -> String {
        let words = problem.option.split(separator: " ", maxSplits: 1).map(String.init)
        guard let option = words.first else { return "" }
        if let text = payload.first(where: { $0.option == option }) {
            return "payload.\(text.json)"
        }
        guard let section = all.first(where: { $0.option == option }) else {
            return problem.option
        }
        let place = section.json + (section.isList ? "[\(problem.index ?? 0)]" : "")
        guard words.count > 1 else { return place }
        let field = section.fields.first { $0.key == words[1] }
        return ([place] + (field?.path ?? [words[1]])).joined(separator: ".")
    }
}

extension ConfigurationProblem {
    /// The mistake for one who wrote JSON, with the path in place of the option.
    package var jsonDescription: String {
        let path = ConfigurationSection.path(self)
        return value.isEmpty ? "\(path): \(reason)" : "\(path) '\(value)': \(reason)"
    }
}
