// swift-tools-version: 6.2
import PackageDescription

// The modules are links to the product's own sources: they share `package` declarations, which a
// dependency could not see, and the product's manifest stays free of benchmarks.
let package = Package(
    name: "ring-benchmark",
    targets: [
        .systemLibrary(name: "CVMMLinux"),
        .target(name: "CAllocationCount"),
        .target(name: "VMMBase"),
        .target(name: "VMMBus", dependencies: ["VMMBase"]),
        .target(name: "VMMHost", dependencies: ["CVMMLinux", "VMMBase"]),
        .target(name: "VMMStorage", dependencies: ["VMMBase", "VMMHost"]),
        .target(name: "VMMNetwork", dependencies: ["VMMBase", "VMMHost"]),
        .target(name: "VMMSandbox", dependencies: ["VMMBase", "VMMHost"]),
        .target(name: "VMMVirtIO", dependencies: ["VMMBase", "VMMHost", "VMMBus"]),
        .target(
            name: "VMMDevices",
            dependencies: [
                "VMMBase", "VMMHost", "VMMBus", "VMMStorage", "VMMNetwork", "VMMSandbox",
                "VMMVirtIO",
            ]),
        .executableTarget(
            name: "ring-benchmark",
            dependencies: ["VMMBase", "VMMHost", "VMMVirtIO", "CAllocationCount"]),
        .executableTarget(
            name: "filter-benchmark", dependencies: ["VMMBase", "VMMHost", "VMMSandbox"]),
        .executableTarget(
            name: "block-benchmark",
            dependencies: [
                "VMMBase", "VMMHost", "VMMStorage", "VMMVirtIO", "VMMDevices", "CAllocationCount",
            ]),
        .executableTarget(
            name: "network-benchmark",
            dependencies: [
                "VMMBase", "VMMHost", "VMMNetwork", "VMMVirtIO", "VMMDevices", "CAllocationCount",
            ]),
    ]
)
