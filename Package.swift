// swift-tools-version: 6.2
import PackageDescription

/// Every Swift target is held to the same rules: Swift 6 mode, strict memory safety, no warnings.
let houseRules: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

/// Tests reach into the host with Foundation and libc, so memory safety is not enforced there.
let testRules: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
]

func module(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: houseRules)
}

func suite(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies, swiftSettings: testRules)
}

let package = Package(
    name: "swiftlet",
    products: [
        .executable(name: "swiftlet-vmm", targets: ["swiftlet-vmm"]),
        .executable(name: "swiftlet", targets: ["swiftlet"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")
    ],
    targets: [
        .systemLibrary(name: "CVMMLinux"),
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
        .executableTarget(
            name: "swiftlet-vmm",
            dependencies: ["VMMBase", "VMMHost", "VMMDevices", "VMMMachine", "VMMServer"],
            swiftSettings: houseRules),
        .executableTarget(
            name: "swiftlet",
            dependencies: [
                "VMMBase", "VMMHost", "VMMNetwork", "VMMStorage", "VMMSandbox", "VMMDevices",
                "VMMMachine",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: houseRules),
        module(
            "VMMTestSupport", ["VMMBase", "VMMHost", "VMMBus", "VMMVirtIO", "VMMDevices"]),
        suite("VMMBaseTests", ["VMMBase"]),
        suite("VMMFirmwareTests", ["VMMFirmware", "VMMBase"]),
        suite("VMMBusTests", ["VMMBus", "VMMBase"]),
        suite("RepositoryTests", ["VMMMachine", "VMMServer"]),
        suite("BootTests", ["VMMBase"]),
        suite(
            "VMMDevicesTests",
            [
                "VMMDevices", "VMMTestSupport", "VMMBase", "VMMBus", "VMMHost", "VMMStorage",
                "VMMNetwork", "VMMVirtIO",
            ]),
        suite(
            "VMMVirtIOTests", ["VMMVirtIO", "VMMTestSupport", "VMMBase", "VMMBus", "VMMHost"]),
        suite("VMMHostTests", ["VMMHost", "VMMTestSupport", "VMMBase"]),
        suite("VMMSandboxTests", ["VMMSandbox", "VMMTestSupport", "VMMHost", "VMMBase"]),
        suite("VMMStorageTests", ["VMMStorage", "VMMTestSupport", "VMMHost", "VMMBase"]),
        suite("SwiftletTests", []),
        suite(
            "VMMServerTests",
            ["VMMServer", "VMMTestSupport", "VMMMachine", "VMMHost", "VMMBus", "VMMBase"]),
        suite("VMMNetworkTests", ["VMMNetwork", "VMMTestSupport", "VMMBase", "VMMHost"]),
        suite(
            "VMMMachineTests",
            ["VMMMachine", "VMMDevices", "VMMBus", "VMMTestSupport", "VMMBase", "VMMHost"]),
    ]
)
