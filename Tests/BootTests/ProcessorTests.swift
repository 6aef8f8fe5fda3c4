import Testing

@Suite("Processors")
struct ProcessorTests {
    @Test("a guest runs on each of its vCPUs", .guest, arguments: [1, 2, 4])
    func processors(count: Int) throws {
        // Field 39 of a process's `stat` is the CPU that it ran on last.
        var boot = Boot(
            """
            say count "$(nproc)"
            cpu=0
            while [ $cpu -lt \(count) ]; do
                mask=$(printf %x $((1 << cpu)))
                say ran-on "$(taskset "$mask" awk '{ print $39 }' /proc/self/stat)"
                cpu=$((cpu + 1))
            done
            """)
        boot.cpus = "boot=\(count)"

        let guest = try boot.run()

        #expect(try guest.number("count") == count)
        #expect(guest.all("ran-on") == (0..<count).map { "\($0)" })
    }

    @Test("a guest sees processors that it may get later", .guest)
    func laterProcessors() throws {
        var boot = Boot(
            """
            say possible "$(cat /sys/devices/system/cpu/possible)"
            say online "$(cat /sys/devices/system/cpu/online)"
            """)
        boot.cpus = "boot=2,max=4"

        let guest = try boot.run()

        #expect(try guest.told("possible") == "0-3")
        #expect(try guest.told("online") == "0-1")
    }

    @Test("64 vCPUs reach init", .aloneInTheBed)
    func many() throws {
        var boot = Boot("say count \"$(nproc)\"")
        boot.cpus = "boot=64"
        boot.memory = "size=1G"
        boot.kernelWords = ["nowatchdog", "rcupdate.rcu_cpu_stall_suppress=1"]

        let guest = try boot.run(within: 1500)

        #expect(try guest.number("count") == 64)
    }
}
