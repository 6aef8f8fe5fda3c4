import Foundation
import Testing

/// A host whose disks fill up, shrink and fail, and a monitor that is killed: the guest is told,
/// goes on, and loses nothing that it was promised.
@Suite("Disks of a failing host", .guest)
struct DiskFaultTests {
    private static let mebibyte = 1 << 20

    @Test("a full host is an I/O error to the guest, which goes on, and writes when there is room")
    func full() throws {
        let scratch = try Scratch()
        let host = try HostDisk(.tmpfs, mebibytes: 16, in: scratch)
        for (name, format) in [("raw", "raw"), ("qcow2", "qcow2"), ("vhd", "vpc")] {
            try HostCommand.run("qemu-img", "create", "-q", "-f", format, host(name), "32M")
        }
        var boot = Boot(
            """
            head -c 1048576 /dev/urandom >/piece
            fill() { # fill DISK: 24 MiB, of which the host has room for 5 at most
                i=0
                while [ $i -lt 24 ]; do
                    dd if=/piece of=$1 bs=64k seek=$((i * 16)) conv=notrunc,fsync 2>/dev/null ||
                        return 1
                    i=$((i + 1))
                done
            }
            for disk in vda vdb vdc; do
                dd if=/piece of=/dev/$disk bs=64k conv=notrunc,fsync 2>/dev/null || fail first
            done
            for disk in vda vdb vdc; do fill /dev/$disk && fail "$disk was not full"; done
            say errors "$(dmesg | grep -c 'I/O error')"
            for disk in vda vdb vdc; do
                echo 3 >/proc/sys/vm/drop_caches
                say first "$(dd if=/dev/$disk bs=64k count=16 2>/dev/null | cmp - /piece && echo same)"
            done
            echo ready
            read word
            for disk in vda vdb vdc; do fill /dev/$disk || fail "$disk with room"; done
            echo 3 >/proc/sys/vm/drop_caches
            for disk in vda vdb vdc; do
                say last "$(dd if=/dev/$disk bs=64k skip=368 count=16 2>/dev/null | cmp - /piece &&
                    echo same)"
            done
            """)
        boot.options = [
            "--disk", "path=\(host("raw")),image_type=raw",
            "path=\(host("qcow2")),image_type=qcow2",
            "path=\(host("vhd")),image_type=vhd",
        ]

        let guest = try boot.start(scratch)
        try guest.wait(for: "ready\n")
        try host.resize(mebibytes: 200)
        guest.type("go on\n")
        try guest.finish()

        #expect(try guest.number("errors") >= 3)
        #expect(guest.all("first") == ["same", "same", "same"])
        #expect(guest.all("last") == ["same", "same", "same"])
        try HostCommand.run("qemu-img", "check", "-q", host("qcow2"))
    }

    @Test("a file that shrinks and a device that fails are I/O errors to the guest, which goes on")
    func shrinks() throws {
        let scratch = try Scratch()
        let file = try scratch.file("file", Data(repeating: 0x61, count: 16 * Self.mebibyte))
        let backing = try scratch.file("backing", Data(repeating: 0x62, count: 16 * Self.mebibyte))
        let loop = try HostCommand.run("losetup", "--show", "-f", backing)
            .trimmingCharacters(in: .whitespacesAndNewlines)
        defer { _ = try? HostCommand(["losetup", "-d", loop]) }
        var boot = Boot(
            """
            at() { # at DISK MEBIBYTE: one byte of it, past all caches
                echo 3 >/proc/sys/vm/drop_caches
                dd if=$1 bs=4096 skip=$(($2 * 256)) count=1 2>/dev/null | head -c 1
            }
            say before "$(at /dev/vda 1)$(at /dev/vda 12)$(at /dev/vdb 1)$(at /dev/vdb 12)"
            echo ready
            read word
            say after "$(at /dev/vda 1)$(at /dev/vda 12)$(at /dev/vdb 1)$(at /dev/vdb 12)"
            say errors "$(dmesg | grep 'I/O error' | grep -o 'dev vd[ab]' | sort -u | xargs)"
            head -c 4096 /dev/zero | dd of=/dev/vda bs=4096 seek=256 conv=notrunc,fsync 2>/dev/null ||
                fail "write below the end"
            """)
        boot.options = ["--disk", "path=\(file),image_type=raw", "path=\(loop),image_type=raw"]

        let guest = try boot.start(scratch)
        try guest.wait(for: "ready\n")
        for path in [file, backing] {
            try #require(truncate(path, 4 * Self.mebibyte) == 0)
        }
        try HostCommand.run("blockdev", "--flushbufs", loop)
        guest.type("go on\n")
        try guest.finish()

        #expect(try guest.told("before") == "aabb")
        #expect(try guest.told("after") == "ab")
        #expect(try guest.told("errors") == "dev vda dev vdb")
    }

    @Test("nobody else opens an image in use, and those who only read may share one")
    func locks() throws {
        let scratch = try Scratch()
        let image = try scratch.sparseFile("image", bytes: 8 * Self.mebibyte)
        let whole = try scratch.sparseFile("whole", bytes: 8 * Self.mebibyte)
        let shared = try scratch.sparseFile("shared", bytes: 8 * Self.mebibyte)
        var boot = Boot(
            """
            echo ready
            read word
            """)
        boot.options = [
            "--disk", "path=\(image),image_type=raw",
            "path=\(whole),image_type=raw,lock_granularity=full",
            "path=\(shared),image_type=raw,readonly=on",
        ]
        let guest = try boot.start(scratch)
        try guest.wait(for: "ready\n")

        for path in [image, whole] {
            for access in ["", ",readonly=on"] {
                var second = Boot()
                second.serial = "null"
                second.options = ["--disk", "path=\(shared),readonly=on", "path=\(path)\(access)"]
                let refused = try HostCommand(second.arguments(scratch))
                #expect(refused.status == 1)
                #expect(refused.errors.contains("\(path)': is used by somebody else"))
                #expect(!refused.errors.contains(shared), "\(refused.errors)")
            }
            let other = try HostCommand(["qemu-io", "-f", "raw", "-c", "write 0 512", path])
            #expect(other.status != 0 && other.errors.contains("lock"), "\(other.errors)")
        }
        var writer = Boot()
        writer.serial = "null"
        writer.options = ["--disk", "path=\(shared)"]
        let refused = try HostCommand(writer.arguments(scratch))
        #expect(refused.status == 1 && refused.errors.contains(shared))
        guest.type("go on\n")
        try guest.finish()
        try HostCommand.run("qemu-io", "-f", "raw", "-c", "write 0 512", image)
    }

    @Test(
        "a monitor that is killed leaves a sound image with all that was flushed", arguments: 1...2)
    func killed(round: Int) throws {
        let scratch = try Scratch()
        let image = scratch("image")
        try HostCommand.run(
            "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", image, "64M")
        var boot = Boot(
            """
            # Each record in a cluster of its own, told when it is stable.
            i=0
            while :; do
                printf '%08d' $i | dd of=/dev/vda bs=4096 seek=$((i * 7 % 4096)) \\
                    conv=notrunc,fsync 2>/dev/null || fail write
                say stable $i
                i=$((i + 1))
            done
            """)
        boot.options = ["--disk", "path=\(image),image_type=qcow2"]
        let guest = try boot.start(scratch)
        try guest.wait(for: "= stable", times: 20)
        usleep(UInt32.random(in: 0..<500_000))

        guest.process.send(SIGKILL)
        _ = try guest.waitForExit()

        let check = try HostCommand(["qemu-img", "check", "-f", "qcow2", image])
        #expect(check.status == 0 || check.status == 3, "\(check.output)\(check.errors)")
        let raw = scratch("raw")
        try HostCommand.run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw)
        let stored = try scratch.data("raw")
        let stable = guest.all("stable").compactMap { Int($0) }
        #expect(stable.count >= 20)
        let lost = stable.filter { number in
            let place = number * 7 % 4096 * 4096
            return stored[place..<place + 8] != Data(String(format: "%08d", number).utf8)
        }
        #expect(lost == [])
    }
}
