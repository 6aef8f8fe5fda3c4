// swift-tools-version: 6.2
import PackageDescription

// The modules are links to the product's own sources, as in Benchmarks/ring: all of them are
// compiled with libFuzzer's counters and AddressSanitizer, and with assertions on though optimised.
let fuzzed: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .unsafeFlags(["-sanitize=fuzzer,address", "-assert-config", "Debug", "-enable-testing"]),
]

// What feeds them has no counters: it is not what is looked into.
let fuzzing: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
]

func module(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: fuzzed)
}

let package = Package(
    name: "swiftlet-fuzz",
    targets: [
        .systemLibrary(name: "CVMMLinux"),
        .systemLibrary(name: "CLibFuzzer"),
        module("VMMBase", []),
        module("VMMHost", ["CVMMLinux", "VMMBase"]),
        module("VMMBus", ["VMMBase"]),
        module("VMMFirmware", ["VMMBase"]),
        module("VMMStorage", ["VMMBase", "VMMHost"]),
        module("VMMNetwork", ["VMMBase", "VMMHost"]),
        module("VMMSandbox", ["VMMBase", "VMMHost"]),
        module("VMMVirtIO", ["VMMBase", "VMMHost", "VMMBus"]),
        module(
            "VMMDevices",
            [
                "VMMBase", "VMMHost", "VMMBus", "VMMStorage", "VMMNetwork", "VMMSandbox",
                "VMMVirtIO",
            ]),
        module(
            "VMMMachine",
            [
                "VMMBase", "VMMHost", "VMMBus", "VMMFirmware", "VMMStorage", "VMMNetwork",
                "VMMSandbox", "VMMVirtIO", "VMMDevices",
            ]),
        module("VMMServer", ["VMMBase", "VMMHost", "VMMMachine"]),
        module(
            "VMMTestSupport", ["VMMBase", "VMMHost", "VMMBus", "VMMVirtIO", "VMMDevices"]),
        .executableTarget(
            name: "swiftlet-fuzz",
            dependencies: [
                "CLibFuzzer", "VMMBase", "VMMHost", "VMMBus", "VMMFirmware", "VMMStorage",
                "VMMNetwork", "VMMVirtIO", "VMMDevices", "VMMMachine", "VMMServer",
                "VMMTestSupport",
            ],
            swiftSettings: fuzzing,
            linkerSettings: [.unsafeFlags(["-sanitize=fuzzer,address", "-use-ld=lld"])]),
    ]
)
