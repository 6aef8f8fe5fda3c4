import Foundation
import Testing

/// Cores of whole guests.
@Suite("Core dumps", .guest)
struct CoreDumpTests {
    @Test("a core has the guest's memory and registers, and the guest goes on")
    func dump() throws {
        let scratch = try Scratch()
        let secret = "swiftlet-\(UInt64.random(in: .min ... .max))"
        var boot = Boot(
            """
            mkdir -p /tmpfs; mount -t tmpfs none /tmpfs
            read -r secret; echo "$secret" >/tmpfs/file; unset secret
            say written
            read -r words; say heard "$words"
            """)
        boot.cpus = "boot=2"
        boot.options = [
            "--api-socket", scratch("api"), "--event-monitor", "path=\(scratch("events"))",
            "--landlock-rules", "path=\(scratch.path),access=rw",
        ]
        let guest = try boot.start(scratch)
        let api = try API.wait(for: guest, scratch("api"))
        try guest.wait(for: "swiftlet-guest: init")
        guest.type(secret + "\n")
        try guest.wait(for: "= written")
        func dump(_ name: String) throws -> (status: Int, body: String) {
            try api.ask("PUT", "vm.coredump", #"{"destination_url":"file://\#(scratch(name))"}"#)
        }
        #expect(try dump("core").status == 204)
        #expect(try api.state() == "Running")
        #expect(try HostCommand(["grep", "-acF", secret, scratch("core")]).output != "0\n")

        // Two vCPUs; memory from address 0 on.
        let notes = try HostCommand.run("readelf", "-n", scratch("core"))
        #expect(notes.matches(of: /NT_PRSTATUS/).count == 2)
        #expect(notes.matches(of: /QEMU/).count == 2)
        let headers = try HostCommand.run("readelf", "-lW", scratch("core"))
        #expect(headers.contains(/LOAD +0x\w+ 0x0+ 0x0+ 0x0*10000000 0x0*10000000/))
        let use = try FileManager.default.attributesOfItem(atPath: scratch("core"))
        let blocks = try HostCommand.run("stat", "-c", "%b", scratch("core"))
        let size = try #require(use[.size] as? Int)
        let allocated = try #require(Int(blocks.trimmingCharacters(in: .newlines))) * 512
        #expect(size > 256 << 20)
        #expect(allocated < 200 << 20, "memory that nobody touched takes no room")
        print("core dump: \(size) bytes, \(allocated) on the disk")

        // A file that exists, a folder that does not, and no room at all.
        let before = try scratch.data("events").count
        #expect(try dump("core").status == 500)
        #expect(try dump("none/core").status == 500)
        let full = scratch("full")
        try FileManager.default.createDirectory(atPath: full, withIntermediateDirectories: true)
        try HostCommand.run("mount", "-t", "tmpfs", "-o", "size=1M", "none", full)
        let refused = try dump("full/core")
        #expect(refused.status == 500 && refused.body.contains("No space left"))
        #expect(!scratch.exists("full/core"))
        try HostCommand.run("umount", full)
        #expect(try scratch.data("events").count > before)

        #expect(try api.put("vm.pause") == 204)
        #expect(try dump("paused").status == 204)
        #expect(try api.state() == "Paused")
        #expect(try api.put("vm.resume") == 204)
        guest.type("still here\n")
        try guest.wait(for: "= heard still here")
        try guest.finish()
        #expect(try scratch.events("events").contains("vm coredumping"))
    }
}
