import Foundation
import Testing

@Suite("Platform", .guest)
struct PlatformTests {
    /// Many questions to one guest, for a boot costs much and a question little.
    @Test(
        "clocks, ports, devices and the kernel's log are as they should be",
        arguments: [Kernel.Version.debian12, .debian13])
    func platform(version: Kernel.Version) throws {
        let scratch = try Scratch()
        let disk = try scratch.sparseFile("disk", bytes: 1 << 20)
        var boot = Boot(
            """
            say rtc "$(cat /sys/class/rtc/rtc0/name | cut -d ' ' -f 1)"
            say hwclock "$(hwclock -u -r -f /dev/rtc0)"
            say rtcseconds "$(cat /sys/class/rtc/rtc0/since_epoch)"
            echo now
            say date "$(date -u +%s)"
            cd /sys/devices/system/clocksource/clocksource0
            say clocksources "$(cat available_clocksource)"
            say rng "$(cat /sys/class/misc/hw_random/rng_current)"
            say random "$(head -c 65536 /dev/hwrng | gzip -c | wc -c)"
            for device in /sys/bus/pci/devices/*; do
                say pci "$(cat $device/vendor $device/device $device/subsystem_vendor \\
                    $device/revision | xargs) $(basename "$(readlink $device/driver)")"
            done
            say slots "$(ls /sys/bus/pci/devices | xargs)"
            say msi "$(grep -c 'MSI' /proc/interrupts)"
            say tables "$(ls /sys/firmware/acpi/tables | xargs)"
            dmesg >/log
            grep -E 'BUG|Oops|WARNING|Call Trace|soft lockup|unchecked MSR' /log >/complaints
            grep -iE 'ACPI (error|warning|bios)|firmware bug|failed to|cannot' /log >>/complaints
            sed 's/^/= complaint /' /complaints
            """)
        boot.kernel = Kernel(version: version, format: .elf)
        boot.cpus = "boot=2"
        let tap = "tap=swl-plat\(version == .debian12 ? 12 : 13)"
        boot.options = ["--disk", "path=\(disk),image_type=raw", "--net", tap]
        let guest = try boot.start(scratch)
        try guest.wait(for: "now\n")
        let now = Int(Date().timeIntervalSince1970)
        try guest.finish()

        #expect(try guest.told("rtc") == "rtc_cmos")
        // Reading the console takes a busy bed its time as well.
        #expect(try abs(guest.number("rtcseconds") - now) <= 3)
        #expect(try abs(guest.number("date") - now) <= 3)
        #expect(try guest.told("clocksources").contains("acpi_pm"))
        #expect(try guest.told("rng").hasPrefix("virtio_rng"))
        #expect(try guest.number("random") > 60_000, "random bytes do not compress")
        let devices = guest.all("pci")
        #expect(devices.contains { $0.hasPrefix("0x1af4 0x1041 ") && $0.hasSuffix("virtio-pci") })
        #expect(devices.contains { $0.hasPrefix("0x1af4 0x1042 ") && $0.hasSuffix("virtio-pci") })
        #expect(devices.contains { $0.hasPrefix("0x1af4 0x1044 ") && $0.hasSuffix("virtio-pci") })
        #expect(devices.count == 4, "\(devices)")
        #expect(try guest.number("msi") >= 6)
        for table in ["APIC", "DSDT", "FACP", "MCFG"] {
            #expect(try guest.told("tables").contains(table))
        }
        #expect(guest.all("complaint") == [])
    }

    @Test("devices live through many resets by their drivers", arguments: ["pci", "mmio"])
    func driverResets(transport: String) throws {
        let scratch = try Scratch()
        let subnet = transport == "pci" ? 220 : 221
        let disk = try scratch.file(
            "disk", "the first line\n" + String(repeating: "x", count: 4096))
        var boot = Boot(
            """
            ip link set eth0 down
            rebind() {
                echo "$2" >/sys/bus/virtio/drivers/$1/unbind || fail "unbind $1"
                echo "$2" >/sys/bus/virtio/drivers/$1/bind || fail "bind $1"
            }
            name() { basename "$(ls -d /sys/bus/virtio/drivers/$1/virtio*)"; }
            disk=$(name virtio_blk); net=$(name virtio_net); rng=$(name virtio_rng)
            round=0
            while [ $round -lt 20 ]; do
                rebind virtio_blk "$disk"
                [ "$(head -n 1 /dev/vda)" = "the first line" ] || fail "disk in round $round"
                rebind virtio_rng "$rng"
                [ "$(head -c 16 /dev/hwrng | wc -c)" = 16 ] || fail "rng in round $round"
                rebind virtio_net "$net"
                ip address add 192.168.\(subnet).2/24 dev eth0
                ip link set eth0 up
                ping -c 1 -W 5 192.168.\(subnet).1 >/dev/null || fail "net in round $round"
                round=$((round + 1))
            done
            say rounds "$round"
            """)
        boot.options = [
            "--disk", "path=\(disk),image_type=raw", "--net",
            "tap=swl-\(transport),ip=192.168.\(subnet).1,mask=255.255.255.0", "--platform",
            "transport=\(transport)",
        ]

        let guest = try boot.start(scratch)
        try guest.finish()

        #expect(try guest.number("rounds") == 20)
    }

    @Test("a device answers where its BAR was moved to, and only there")
    func barMoves() throws {
        // The rng's BAR 0 has 64 bits. Offset 0x12 of the common configuration, which is its
        // beginning, is the number of queues.
        var boot = Boot(
            """
            virtio=$(basename "$(ls -d /sys/bus/virtio/drivers/virtio_rng/virtio*)")
            device=$(dirname "$(readlink -f /sys/bus/virtio/devices/$virtio)")
            slot=$(basename "$device")
            old=$(head -n 1 "$device/resource" | cut -d ' ' -f 1)
            end=$(head -n 1 "$device/resource" | cut -d ' ' -f 2)
            new=$((old + 0x10000000))
            say size $((end - old + 1))
            put() { # OFFSET VALUE: a 32-bit number into the configuration space
                printf "$(printf '\\\\x%02x\\\\x%02x\\\\x%02x\\\\x%02x' $(($2 & 255)) \\
                    $(($2 >> 8 & 255)) $(($2 >> 16 & 255)) $(($2 >> 24 & 255)))" |
                    dd of="$device/config" bs=4 seek=$(($1 / 4)) conv=notrunc 2>/dev/null
            }
            get() { od -An -tx4 -j "$1" -N 4 "$device/config" | tr -d ' '; }
            move() { put 4 0; put 16 $(($1 & 0xffffffff)); put 20 $(($1 >> 32)); put 4 6; }
            queues() { devmem $(($1 + 0x12)) 16; }
            echo "$slot" >/sys/bus/pci/drivers/virtio-pci/unbind
            put 4 6
            say before "$(queues "$old") $(queues "$new")"
            put 16 0xffffffff
            put 20 0xffffffff
            say mask "$(get 20)$(get 16)"
            move "$new"
            say moved "$(queues "$old") $(queues "$new")"
            put 4 0
            say disabled "$(queues "$old") $(queues "$new")"
            # Linux finds it again, and gives it a place of its own choice.
            echo 1 >"$device/remove"
            echo 1 >/sys/bus/pci/rescan
            say found "$(queues "$(head -n 1 "$device/resource" | cut -d ' ' -f 1)")"
            say random "$(head -c 64 /dev/hwrng | wc -c)"
            """)
        boot.kernelWords = ["iomem=relaxed"]

        let guest = try boot.start(Scratch())
        try guest.finish()

        let none = "0xFFFF"
        #expect(try guest.told("before") == "0x0001 \(none)")
        #expect(try guest.told("moved") == "\(none) 0x0001")
        #expect(try guest.told("disabled") == "\(none) \(none)")
        let size = try guest.number("size")
        #expect(size >= 4096 && size.nonzeroBitCount == 1)
        let mask = try #require(UInt64(guest.told("mask"), radix: 16))
        #expect(~(mask & ~0xf) &+ 1 == UInt64(size))
        #expect(try guest.told("found") == "0x0001")
        #expect(try guest.number("random") == 64)
    }
}
