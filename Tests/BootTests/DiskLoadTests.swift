import Foundation
import Testing

/// fio in the guest: what was written is there, and limits are kept.
@Suite("Disks under load", .guest)
struct DiskLoadTests {
    private static let mebibyte = 1 << 20

    /// The tools disk is the last one; `fio` runs fio of it.
    private static let prelude = """
        for disk in /dev/vd?; do tools=$disk; done
        mount -t ext4 -o ro $tools /mnt || fail "mount the tools"
        fio() { /mnt/lib/ld.so --library-path /mnt/lib /mnt/fio --eta=never "$@"; }

        """

    private static func toolsDisk() throws -> String {
        "path=\(try Bed.guests)/tools,image_type=raw,readonly=on"
    }

    /// An image made by qemu-img and what the monitor is told of it.
    private struct Image {
        let name: String
        let format: String
        var imageOptions = ""
        let diskOptions: String
    }

    private static let images = [
        Image(name: "ring", format: "raw", diskOptions: "image_type=raw,num_queues=2"),
        Image(name: "direct", format: "raw", diskOptions: "image_type=raw,direct=on"),
        Image(
            name: "aio", format: "raw",
            diskOptions: "image_type=raw,direct=on,_disable_io_uring=on"),
        Image(
            name: "blocking", format: "raw",
            diskOptions: "image_type=raw,_disable_io_uring=on,_disable_aio=on"),
        Image(
            name: "full", format: "raw",
            diskOptions: "image_type=raw,sparse=off,lock_granularity=full"),
        Image(
            name: "qcow2", format: "qcow2", imageOptions: "cluster_size=4096,lazy_refcounts=on",
            diskOptions: "image_type=qcow2,num_queues=2"),
        Image(
            name: "qcow2-direct", format: "qcow2", imageOptions: "compat=0.10",
            diskOptions: "image_type=qcow2,direct=on"),
        Image(
            name: "vhd", format: "vpc", imageOptions: "subformat=dynamic,force_size=on",
            diskOptions: "image_type=vhd"),
        Image(
            name: "vhdx", format: "vhdx", imageOptions: "block_size=1M",
            diskOptions: "image_type=vhdx"),
        Image(
            name: "disk.vmdk", format: "vmdk", imageOptions: "subformat=monolithicFlat",
            diskOptions: "image_type=vmdk"),
    ]

    @Test("fio verifies every format and engine, in the guest that wrote and in the next one")
    func verifies() throws {
        let scratch = try Scratch()
        let host = try HostDisk(.ext4, mebibytes: 300, in: scratch)
        for image in Self.images {
            let options = image.imageOptions.isEmpty ? [] : ["-o", image.imageOptions]
            let words = ["qemu-img", "create", "-q", "-f", image.format] + options
            let made = try HostCommand(words + [host(image.name), "16M"])
            #expect(made.status == 0, "\(made.errors)")
        }
        let disks = Self.images.map { "path=\(host($0.name)),\($0.diskOptions)" }

        for pass in ["--do_verify=1 --end_fsync=1", "--verify_only"] {
            var boot = Boot(
                Self.prelude + """
                    for disk in /dev/vd?; do
                        [ $disk != $tools ] || continue
                        fio --name=job --filename=$disk --rw=randwrite --bsrange=512-65536 \\
                            --blockalign=512 --size=12M --io_size=3M --ioengine=libaio \\
                            --iodepth=16 --direct=1 --verify=crc32c --verify_fatal=1 \\
                            --randseed=77 --minimal \(pass) >/log 2>&1 ||
                            { cat /log; fail "fio on $disk"; }
                        say verified $disk
                    done
                    """)
            boot.cpus = "boot=2"
            boot.options = ["--disk"] + disks + [try Self.toolsDisk()]
            let guest = try boot.start(scratch)
            if pass.hasPrefix("--do_verify") { try expectRoom(of: host("full")) }
            try guest.finish(within: 2 * Guest.patience)
            #expect(guest.all("verified").count == Self.images.count)
        }
        for name in ["qcow2", "qcow2-direct", "vhdx"] {
            try HostCommand.run("qemu-img", "check", "-q", host(name))
        }
    }

    /// `sparse=off`: the room is taken when the disk is opened, before the guest writes.
    private func expectRoom(of path: String) throws {
        let deadline = Date(timeIntervalSinceNow: Guest.patience)
        var kibibytes = 0
        while kibibytes < 16 << 10, Date() < deadline {
            let room = try HostCommand.run("du", "-k", path).split(separator: "\t")[0]
            kibibytes = Int(room) ?? 0
            usleep(100_000)
        }
        #expect(kibibytes >= 16 << 10)
    }

    /// fio's jobs run side by side in one process, so that the group's two are throttled together
    /// from the first request to the last. What comes before the ramp's end is not counted: by then
    /// the buckets are empty. Rates are low and buckets hold eight seconds' worth, so that a host
    /// with other work to do may be slow, or late for as long as that, and lose nothing.
    @Test("bytes and operations per second are within 5 % of the limit, also of a group")
    func limits() throws {
        let scratch = try Scratch()
        let paths = try ["bytes", "operations", "one", "other"].map {
            try scratch.file($0, Data(repeating: 7, count: 8 * Self.mebibyte))
        }
        let limits = [
            "bw_size=1048576,bw_refill_time=8000", "ops_size=40,ops_refill_time=8000",
            "rate_limit_group=both", "rate_limit_group=both",
        ]
        var boot = Boot(
            Self.prelude + """
                fio --rw=randread --ioengine=libaio --iodepth=2 --direct=1 --time_based \
                    --ramp_time=10 --runtime=60 --output-format=terse --bs=16k \
                    --name=bytes --filename=/dev/vda --name=operations --bs=4k --filename=/dev/vdb \
                    --name=one --filename=/dev/vdc --name=other --filename=/dev/vdd >/log ||
                    { cat /log; fail "fio"; }
                while IFS=';' read -r _ _ job _ _ kibibytes _ _ milliseconds _; do
                    say "$job" "$kibibytes $milliseconds"
                done </log
                """)
        boot.options =
            ["--rate-limit-group", "id=both,bw_size=1048576,bw_refill_time=8000", "--disk"]
            + zip(paths, limits).map { "path=\($0),image_type=raw,readonly=on,\($1)" }
            + [try Self.toolsDisk()]

        let guest = try boot.start(scratch)
        try guest.finish()

        let bytes = try bytesPerSecond(guest, ["bytes"])
        #expect(abs(bytes / 131_072 - 1) < 0.05, "\(bytes) bytes a second")
        let operations = try bytesPerSecond(guest, ["operations"]) / 4096
        #expect(abs(operations / 5 - 1) < 0.05, "\(operations) operations a second")
        let both = try bytesPerSecond(guest, ["one", "other"])
        #expect(abs(both / 131_072 - 1) < 0.05, "\(both) bytes a second of the group")
    }

    /// Of jobs that ran side by side.
    private func bytesPerSecond(_ guest: Guest, _ jobs: [String]) throws -> Double {
        var bytes = 0.0
        var milliseconds = 0.0
        for job in jobs {
            let numbers = try guest.told(job).split(separator: " ").compactMap { Double($0) }
            try #require(numbers.count == 2 && numbers[1] > 0)
            bytes += numbers[0] * 1024
            milliseconds = max(milliseconds, numbers[1])
        }
        return bytes / milliseconds * 1000
    }
}
