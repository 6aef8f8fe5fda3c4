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
        .target(name: "VMMVirtIO", dependencies: ["VMMBase", "VMMHost", "VMMBus"]),
        .executableTarget(
            name: "ring-benchmark",
            dependencies: ["VMMBase", "VMMHost", "VMMVirtIO", "CAllocationCount"]),
    ]
)
