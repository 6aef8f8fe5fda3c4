import Testing
import VMMBase

@testable import VMMDevices

@Suite("NetworkSpec")
struct NetworkSpecTests {
    @Test("every key is understood")
    func everyKey() throws {
        let text =
            "tap=t0,ip=10.0.0.1,mask=255.255.255.0,mac=02:00:00:00:00:01,offload_csum=on,"
            + "offload_tso=off,offload_ufo=off,queue_size=32,id=n,pci_device_id=31"
        let spec = try parse(text, as: NetworkSpec.self).get()
        #expect(spec.tap == "t0" && spec.address == "10.0.0.1" && spec.mask == "255.255.255.0")
        #expect(spec.mac == "02:00:00:00:00:01" && spec.offloadsChecksum == true)
        #expect(spec.offloadsTCP == false && spec.offloadsUDP == false)
        #expect(spec.queueSize == 32 && spec.id == "n" && spec.place.device == 31)
        #expect(spec.problems().isEmpty)
    }

    @Test(
        "sound values are no problem",
        arguments: [
            "tap=fifteen-bytes-x", "ip=fd00::1,mask=ffff::", "queue_size=1024",
            "offload_csum=off", "offload_csum=off,offload_tso=off",
        ])
    func good(text: String) {
        #expect(problems(text, as: NetworkSpec.self) == [])
    }

    @Test(
        "mistakes are named with their value",
        arguments: [
            ("ip=10.0.0.1", "--net mask: ip and mask are given together or not at all"),
            ("mask=255.0.0.0", "--net ip: ip and mask are given together or not at all"),
            ("ip=10.0.0,mask=255.0.0.0", "--net ip '10.0.0': is no IPv4 or IPv6 address"),
            ("ip=10.0.0.1,mask=255.0.255.0", "--net mask '255.0.255.0': is no netmask"),
            ("ip=10.0.0.1,mask=ffff::", "--net mask 'ffff::': is not of the address's family"),
            (
                "tap=sixteen-bytes-xy",
                "--net tap 'sixteen-bytes-xy': an interface's name has 1 to "
                    + "15 bytes"
            ),
            (
                "mac=02:00",
                "--net mac '02:00': expected six pairs of hex digits, "
                    + "aa:bb:cc:dd:ee:ff"
            ),
            (
                "mac=01:00:00:00:00:01",
                "--net mac '01:00:00:00:00:01': is a group address; bit 0 "
                    + "of the first byte is set"
            ),
            ("mtu=1279", "--net mtu '1279': expected 1280 to 65521"),
            ("mtu=65522", "--net mtu '65522': expected 1280 to 65521"),
            ("fd=[2]", "--net fd '[2]': expected different descriptors from 3 on"),
            ("num_queues=3", "--net num_queues '3': expected an even number from 2 to 512"),
            (
                "host_mac=03:00:00:00:00:01",
                "--net host_mac '03:00:00:00:00:01': is a group address; bit 0 "
                    + "of the first byte is set"
            ),
            ("queue_size=8", "--net queue_size '8': expected a power of two from 32 to 1024"),
            ("queue_size=48", "--net queue_size '48': expected a power of two from 32 to 1024"),
            (
                "offload_csum=off,offload_tso=on",
                "--net offload_csum 'off': segmentation offloads "
                    + "need it; switch those off too"
            ),
        ])
    func mistakes(text: String, expected: String) {
        #expect(problems(text, as: NetworkSpec.self) == [expected])
    }

    @Test("several mistakes are told at once")
    func allAtOnce() {
        let text = "tap=sixteen-bytes-xy,ip=x,mask=y,mac=z,queue_size=3"
        #expect(problems(text, as: NetworkSpec.self).count == 5)
    }
}
