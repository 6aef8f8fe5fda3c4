import Testing

/// The import table of DESIGN section 2: arrows point down only.
@Suite("Imports")
struct ImportTests {
    private static let system: Set<String> = ["CVMMLinux", "Glibc"]

    private static let table: [String: Set<String>] = [
        "VMMBase": [],
        "VMMHost": system.union(["VMMBase"]),
        "VMMBus": ["VMMBase"],
        "VMMFirmware": ["VMMBase"],
        "VMMStorage": ["VMMBase", "VMMHost"],
        "VMMNetwork": ["VMMBase", "VMMHost"],
        "VMMSandbox": ["VMMBase", "VMMHost"],
        "VMMVirtIO": ["VMMBase", "VMMHost", "VMMBus"],
        "VMMDevices": [
            "VMMBase", "VMMHost", "VMMBus", "VMMStorage", "VMMNetwork", "VMMSandbox",
            "VMMVirtIO",
        ],
        "VMMMachine": [
            "VMMBase", "VMMHost", "VMMBus", "VMMFirmware", "VMMStorage", "VMMNetwork",
            "VMMSandbox", "VMMVirtIO", "VMMDevices",
        ],
        "VMMServer": ["VMMBase", "VMMHost", "VMMMachine"],
        "VMMTestSupport": [
            "VMMBase", "VMMHost", "VMMBus", "VMMVirtIO", "VMMStorage", "VMMNetwork",
            "VMMDevices", "FoundationEssentials",
        ],
        "swiftlet": [
            "VMMBase", "VMMHost", "VMMStorage", "VMMNetwork", "VMMSandbox", "VMMDevices",
            "VMMMachine", "ArgumentParser", "FoundationEssentials",
        ],
        "swiftlet-vmm": ["VMMBase", "VMMHost", "VMMDevices", "VMMMachine", "VMMServer"],
    ]

    @Test("each module imports only what stands below it", arguments: Repository.sources)
    func modules(file: Repository.SourceFile) throws {
        let allowed = try #require(Self.table[file.module], "a module that the table lacks")

        let imports = file.codeLines.compactMap {
            $0.text.firstMatch(of: /^\s*(?:package |public )?import (\w+)/).map { String($0.1) }
        }

        let excess = Set(imports).subtracting(allowed).subtracting(["Synchronization"])
        #expect(excess.isEmpty)
    }
}
