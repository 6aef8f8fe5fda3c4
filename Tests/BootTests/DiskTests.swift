import Foundation
import Testing

@Suite("Disks", .guest)
struct DiskTests {
    private static let mebibyte = 1 << 20

    @Test("what a guest writes is on the disk after its end", arguments: ["off", "on"])
    func content(blocking: String) throws {
        let scratch = try Scratch()
        let fileSystem = try scratch.sparseFile("ext4", bytes: 64 * Self.mebibyte)
        try HostCommand.run("mke2fs", "-q", "-F", "-t", "ext4", fileSystem)
        let raw = try scratch.sparseFile("raw", bytes: 32 * Self.mebibyte)
        var boot = Boot(
            """
            say serials "$(cat /sys/block/vda/serial) $(cat /sys/block/vdb/serial)"
            say sizes "$(cat /sys/block/vda/size /sys/block/vdb/size | xargs)"
            mount -t ext4 /dev/vda /mnt || fail mount
            mkdir /mnt/folder
            seq 1 20000 >/mnt/folder/numbers
            head -c 8388608 /dev/urandom >/mnt/random || fail random
            say random "$(sha256sum </mnt/random)"
            sync
            umount /mnt
            mount -t ext4 -o ro /dev/vda /mnt || fail mount again
            say read "$(sha256sum </mnt/random)"
            umount /mnt
            # Unaligned pieces, in the middle and at the very end.
            seq 1 20000 >/numbers
            dd if=/numbers of=/dev/vdb bs=1000 seek=777 conv=notrunc 2>/dev/null || fail dd
            printf end | dd of=/dev/vdb bs=1 seek=$((32 * 1048576 - 3)) 2>/dev/null || fail end
            dd if=/dev/zero of=/dev/vdb bs=1 seek=$((32 * 1048576)) count=1 2>/dev/null && fail past
            sync
            """)
        let mode = "_disable_io_uring=\(blocking)"
        boot.options = [
            "--disk", "path=\(fileSystem),image_type=raw,serial=first-disk,\(mode)",
            "path=\(raw),serial=twenty-bytes-serial!,\(mode)", "-v",
        ]

        let guest = try boot.start(scratch)
        try guest.finish()

        #expect(try guest.told("serials") == "first-disk twenty-bytes-serial!")
        #expect(try guest.told("sizes") == "131072 65536")
        #expect(try guest.told("read") == guest.told("random"))
        #expect(!guest.errors.text.contains("instead of io_uring"))
        try HostCommand.run("e2fsck", "-fn", fileSystem)
        for (name, path) in [("random", "/random"), ("numbers", "/folder/numbers")] {
            try HostCommand.run("debugfs", "-R", "dump \(path) \(scratch(name))", fileSystem)
        }
        let random = try HostCommand.run("sha256sum", scratch("random")).split(separator: " ")[0]
        #expect(try guest.told("random").hasPrefix(random))
        #expect(try scratch.text("numbers") == (1...20000).map { "\($0)\n" }.joined())
        let numbers = Data((1...20000).map { "\($0)\n" }.joined().utf8)
        let stored = try scratch.data("raw")
        #expect(stored[777_000..<777_000 + numbers.count] == numbers)
        #expect(stored.suffix(3) == Data("end".utf8))
        #expect(stored.count == 32 * Self.mebibyte)
    }

    @Test("a disk of two queues has a thread for each, on the CPU it was given")
    func queues() throws {
        let scratch = try Scratch()
        let disk = try scratch.sparseFile("disk", bytes: 16 * Self.mebibyte)
        var boot = Boot(
            """
            say queues "$(ls /sys/block/vda/mq | wc -l)"
            for cpu in 0 1; do
                (i=0; while [ $i -lt 8 ]; do
                    taskset $((1 << cpu)) dd if=/init of=/dev/vda bs=4096 count=1 \\
                        seek=$((cpu * 64 + i)) conv=notrunc,fsync 2>/dev/null || fail dd
                    i=$((i + 1))
                done) &
            done
            wait
            for cpu in 0 1; do
                [ "$(dd if=/dev/vda bs=4096 skip=$((cpu * 64 + 7)) count=1 2>/dev/null | md5sum)" = \\
                    "$(head -c 4096 /init | md5sum)" ] || fail "content of cpu $cpu"
            done
            echo ready
            read word
            """)
        boot.cpus = "boot=2"
        boot.options = [
            "--disk",
            "path=\(disk),image_type=raw,num_queues=2,queue_affinity=[0@[0],1@[0]],id=fast",
        ]

        let guest = try boot.start(scratch)
        try guest.wait(for: "ready\n")
        let tasks = "/proc/\(guest.process.identifier)/task"
        var pinned: Set<String> = []
        for task in try FileManager.default.contentsOfDirectory(atPath: tasks) {
            let status = try String(contentsOfFile: "\(tasks)/\(task)/status", encoding: .utf8)
            let name = status.prefix { $0 != "\n" }.dropFirst("Name:\t".count)
            if status.contains("Cpus_allowed_list:\t0\n") { pinned.insert(String(name)) }
        }
        guest.type("go on\n")
        try guest.finish()

        #expect(try guest.number("queues") == 2)
        #expect(pinned.isSuperset(of: ["fast_q0", "fast_q1"]))
    }

    @Test("a read-only disk refuses writes, and a block device serves as a disk")
    func readOnlyAndBlockDevice() throws {
        let scratch = try Scratch()
        let content = Data((0..<10_000).map { "line \($0)\n" }.joined().utf8)
        let file = try scratch.file("disk", content)
        let image = try scratch.sparseFile("image", bytes: 8 * Self.mebibyte)
        let loop = try HostCommand.run("losetup", "--show", "-f", image)
            .trimmingCharacters(in: .whitespacesAndNewlines)
        defer { _ = try? HostCommand(["losetup", "-d", loop]) }
        var boot = Boot(
            """
            say readonly "$(blockdev --getro /dev/vda) $(blockdev --getro /dev/vdb)"
            say first "$(head -n 1 /dev/vda)"
            dd if=/dev/zero of=/dev/vda bs=4096 count=1 conv=fsync 2>/dev/null && fail wrote
            say refused yes
            say size "$(cat /sys/block/vdb/size)"
            echo written by the guest | dd of=/dev/vdb bs=512 seek=9 conv=fsync 2>/dev/null
            """)
        boot.options = ["--disk", "path=\(file),readonly=on", "path=\(loop),image_type=raw"]

        let guest = try boot.start(scratch)
        try guest.finish()

        #expect(try guest.told("readonly") == "1 0")
        #expect(try guest.told("first") == "line 0")
        #expect(try guest.told("refused") == "yes")
        #expect(try guest.told("size") == "16384")
        #expect(try scratch.data("disk") == content)
        try HostCommand.run("blockdev", "--flushbufs", loop)
        #expect(try scratch.text("image").dropFirst(9 * 512).hasPrefix("written by the guest\n"))
    }

    @Test("discarded and zeroed blocks leave the image, and a flush reaches the host")
    func discard() throws {
        let scratch = try Scratch()
        let raw = try scratch.file(
            "raw", Data(repeating: 0xaa, count: 32 * Self.mebibyte))
        let before = try Self.allocatedBytes(raw)
        var boot = Boot(
            """
            blkdiscard -o 4194304 -l 16777216 /dev/vda || fail discard
            say zeroing "$(cat /sys/block/vda/queue/write_zeroes_max_bytes)"
            say cache "$(cat /sys/block/vda/queue/write_cache)"
            say kept "$(dd if=/dev/vda bs=1M skip=3 count=1 2>/dev/null | tr -d '\\252' | wc -c)"
            say gone "$(dd if=/dev/vda bs=1M skip=4 count=16 2>/dev/null | tr -d '\\0' | wc -c)"
            echo flushed | dd of=/dev/vda bs=512 conv=fsync 2>/dev/null || fail flush
            """)
        boot.options = ["--disk", "path=\(raw),image_type=raw"]

        let guest = try boot.start(scratch)
        try guest.finish()

        #expect(before >= 32 * Self.mebibyte)
        #expect(try Self.allocatedBytes(raw) <= 17 * Self.mebibyte)
        #expect(try guest.number("kept") == 0)
        #expect(try guest.number("gone") == 0)
        #expect(try guest.number("zeroing") > 0)
        #expect(try guest.told("cache") == "write back")
        let stored = try scratch.data("raw")
        #expect(stored.count == 32 * Self.mebibyte)
        let part = 4 * Self.mebibyte
        #expect(stored[part..<5 * part] == Data(count: 4 * part))
        #expect(stored[(5 * part)...] == Data(repeating: 0xaa, count: 3 * part))
        #expect(stored.starts(with: "flushed\n".utf8))
    }

    private static func allocatedBytes(_ path: String) throws -> Int {
        var status = stat()
        try #require(stat(path, &status) == 0)
        return Int(status.st_blocks) * 512
    }
}
