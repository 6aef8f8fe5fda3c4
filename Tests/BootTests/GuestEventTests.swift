import Foundation
import Testing

/// What a guest tells of itself.
@Suite("Guest events", .guest)
struct GuestEventTests {
    private static let readyPort = 0x5357

    @Test("a guest says that it is up, and that its kernel panics")
    func panics() throws {
        let scratch = try Scratch()
        var boot = Boot(
            """
            echo ready
            /vsock-peer refused \(Self.readyPort)
            insmod /pvpanic.ko && insmod /pvpanic-pci.ko
            say answers $(cat /sys/bus/pci/drivers/pvpanic-pci/0000:*/capability)
            read -r words
            echo c >/proc/sysrq-trigger
            """)
        boot.programs = ["vsock-peer"]
        boot.files = try Dictionary(
            uniqueKeysWithValues: ["pvpanic.ko", "pvpanic-pci.ko"].map {
                ($0, try Self.module($0, boot.kernel))
            })
        boot.options = [
            "--pvpanic", "--watchdog", "--vsock", "cid=3,socket=\(scratch("v"))",
            "--api-socket", scratch("api"), "--event-monitor", "path=\(scratch("events"))",
        ]
        let guest = try boot.start(scratch)
        let api = API(socket: scratch("api"))
        try guest.wait(for: "= answers 3")
        try waitUntil("the guest's word") {
            try scratch.events("events").contains("guest ready")
        }
        let info = try api.object("vm.info")
        let configuration = info["config"] as? [String: Any]
        #expect(configuration?["pvpanic"] as? Bool == true)
        #expect(configuration?["watchdog"] as? Bool == true)
        let tree = info["device_tree"] as? [String: [String: Any]]
        #expect(tree?["__pvpanic"]?["pci_bdf"] as? String == "0000:00:04.0")
        #expect(tree?["_virtio-pci-__watchdog"] != nil)
        guest.type("\n")
        try waitUntil("the panic") { try scratch.events("events").contains("guest panic") }
        #expect(try scratch.text("events").contains(#""event": "panic"#))
        #expect(try api.put("vmm.shutdown") == 200)
        // Not by what is on the console, where a panic is the end of every wait.
        try waitUntil("the end of the monitor") { guest.process.exitStatus != nil }
        #expect(guest.process.exitStatus == 0)
        #expect(try scratch.events("events").filter { $0 == "guest ready" }.count == 1)
    }

    /// A module of the guest's kernel, unpacked.
    private static func module(_ name: String, _ kernel: Kernel) throws -> Data {
        let folder =
            try Bed.guests + "/\(kernel.version.rawValue)/modules/lib/modules/"
            + kernel.release + "/kernel/drivers/misc/pvpanic/"
        let path = folder + name + ".xz"
        let scratch = try Scratch()
        try HostCommand.run("sh", "-c", "xz -dc '\(path)' >'\(scratch("module"))'")
        return try scratch.data("module")
    }
}
