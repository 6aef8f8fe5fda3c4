import Foundation
import Testing

/// A file system on each image format, through a guest's whole life.
@Suite("Image formats", .guest)
struct ImageFormatTests {
    private static let mebibyte = 1 << 20

    /// An image made by qemu-img from a raw one, and what our monitor is told of it.
    private struct Format {
        let name: String
        let qemuName: String
        let imageOptions: String
        let diskOptions: String
        /// Whether qemu-img checks such images.
        let isChecked: Bool
    }

    private static let formats = [
        Format(
            name: "qcow2", qemuName: "qcow2", imageOptions: "lazy_refcounts=on",
            diskOptions: "image_type=qcow2,num_queues=2", isChecked: true),
        Format(
            name: "qcow2-v2", qemuName: "qcow2", imageOptions: "compat=0.10,cluster_size=4096",
            diskOptions: "image_type=qcow2", isChecked: true),
        Format(
            name: "vhd-fixed", qemuName: "vpc", imageOptions: "subformat=fixed,force_size=on",
            diskOptions: "image_type=vhd", isChecked: false),
        Format(
            name: "vhd-dynamic", qemuName: "vpc", imageOptions: "subformat=dynamic,force_size=on",
            diskOptions: "image_type=vhd", isChecked: false),
        Format(
            name: "vhdx", qemuName: "vhdx", imageOptions: "block_size=1M",
            diskOptions: "image_type=vhdx", isChecked: true),
        Format(
            name: "disk.vmdk", qemuName: "vmdk", imageOptions: "subformat=monolithicFlat",
            diskOptions: "image_type=vmdk,_disable_io_uring=on", isChecked: false),
    ]

    /// For each disk: a file that stays, one that goes and is trimmed away, and no trace of it in
    /// the image's size where the format can give room back.
    private static let script = """
        for disk in /dev/vd?; do
            mount -t ext4 $disk /mnt || fail "mount $disk"
            [ "$(head -n 1 /mnt/numbers)" = 1 ] || fail "content of $disk"
            head -c 1000000 /dev/urandom >/mnt/random || fail "write to $disk"
            for copy in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
                cat /mnt/random >>/mnt/gone || fail "fill $disk"
            done
            sync
            say sum "$disk $(sha256sum </mnt/random | cut -d ' ' -f 1)"
            rm /mnt/gone
            sync
            fstrim /mnt || fail "fstrim $disk"
            umount /mnt
            mount -t ext4 -o ro $disk /mnt || fail "mount $disk again"
            say read "$disk $(sha256sum </mnt/random | cut -d ' ' -f 1)"
            umount /mnt
            say queues "$disk $(ls /sys/block/${disk#/dev/}/mq | wc -l)"
        done
        """

    @Test("a file system lives on every format, shrinks when trimmed, and is sound for QEMU")
    func fileSystems() throws {
        let scratch = try Scratch()
        let raw = try fileSystem(scratch)
        var disks: [String] = []
        for format in Self.formats {
            let image = scratch(format.name)
            try HostCommand.run(
                "qemu-img", "convert", "-O", format.qemuName, "-o", format.imageOptions, raw,
                image)
            disks.append("path=\(image),\(format.diskOptions)")
        }
        // A compressed base, which nobody may change, and an overlay that names it relatively.
        try HostCommand.run("qemu-img", "convert", "-c", "-O", "qcow2", raw, scratch("base"))
        try HostCommand.run(
            "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2",
            scratch("overlay"))
        let base = try scratch.data("base")
        disks.append("path=\(scratch("overlay")),image_type=qcow2,backing_files=on")
        var boot = Boot(Self.script)
        boot.options = ["--disk"] + disks
        boot.cpus = "boot=2"

        let guest = try boot.start(scratch)
        try guest.finish(within: 3 * Guest.patience)

        let sums = guest.all("sum")
        #expect(sums.count == disks.count && sums == guest.all("read"))
        #expect(guest.all("queues").contains("/dev/vda 2"))
        #expect(try scratch.data("base") == base)
        let overlay = Format(
            name: "overlay", qemuName: "qcow2", imageOptions: "", diskOptions: "", isChecked: true)
        for (format, sum) in zip(Self.formats + [overlay], sums) {
            try verify(format, in: scratch, sum: String(sum.split(separator: " ")[1]))
        }
        for name in ["qcow2", "qcow2-v2", "overlay", "vhd-fixed", "disk-flat.vmdk"] {
            let room = try HostCommand.run("du", "-k", scratch(name)).split(separator: "\t")[0]
            #expect(Int(room) ?? .max < 12 << 10, "\(name) gives back what was trimmed")
        }
    }

    /// 32 MiB of ext4 with a file of numbers.
    private func fileSystem(_ scratch: Scratch) throws -> String {
        let tree = scratch("tree")
        try FileManager.default.createDirectory(
            atPath: tree, withIntermediateDirectories: false)
        try (1...20000).map { "\($0)\n" }.joined()
            .write(toFile: tree + "/numbers", atomically: false, encoding: .utf8)
        let raw = try scratch.sparseFile("raw", bytes: 32 * Self.mebibyte)
        try HostCommand.run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, raw)
        return raw
    }

    private func verify(_ format: Format, in scratch: Scratch, sum: String) throws {
        let image = scratch(format.name)
        if format.isChecked { try HostCommand.run("qemu-img", "check", "-q", image) }
        let raw = scratch(format.name + ".raw")
        try HostCommand.run(
            "qemu-img", "convert", "-f", format.qemuName, "-O", "raw", image, raw)
        try HostCommand.run("e2fsck", "-fn", raw)
        let file = scratch(format.name + ".random")
        try HostCommand.run("debugfs", "-R", "dump /random \(file)", raw)
        let stored = try HostCommand.run("sha256sum", file)
        #expect(stored.hasPrefix(sum), "\(format.name)")
        for path in [raw, file] { try FileManager.default.removeItem(atPath: path) }
    }
}
