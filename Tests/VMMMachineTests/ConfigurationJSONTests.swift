import Glibc
import Testing
import VMMBase
import VMMDevices

@testable import VMMMachine

private func configuration(_ text: String) throws -> MachineConfiguration {
    try MachineConfiguration(json: JSONParser.parse(Array(text.utf8)))
}

private func mistakes(_ text: String) throws -> [String] {
    let document = try JSONParser.parse(Array(text.utf8))
    do throws(ConfigurationError) {
        _ = try MachineConfiguration(json: document)
        return []
    } catch {
        return error.problems.map(\.jsonDescription)
    }
}

@Suite("A machine in JSON")
struct ConfigurationJSONTests {
    /// Every member that there is, each with a value of its own.
    private static let whole = """
        {"payload":{"kernel":"/k","cmdline":"console=hvc0 a=\\"b,c\\"","initramfs":"/i"},
        "cpus":{"boot_vcpus":2,"max_vcpus":4,"max_phys_bits":40,"nested":false,"core_scheduling":"Vcpu"},
        "memory":{"size":1073741824,"thp":false},
        "platform":{"transport":"pci","ring":"packed"},
        "rate_limit_groups":[{"rate_limiter_config":{"bandwidth":{"size":1,"refill_time":2,
        "one_time_burst":3}},"id":"g"}],
        "serial":{"mode":"File","file":"/s,x"},
        "debug_console":{"mode":"Null","iobase":1026},
        "console":{"mode":"Socket","socket":"/c","id":"con","pci_device_id":9},
        "disks":[{"path":"/a,b","readonly":true,"image_type":"FixedVhd","backing_files":true,
        "direct":true,"sparse":false,"lock_granularity":"Full","serial":"s","num_queues":2,
        "queue_affinity":[{"queue_index":0,"host_cpus":[1,3]},{"queue_index":1,"host_cpus":[0]}],
        "queue_size":64,"rate_limiter_config":{"ops":{"size":4,"refill_time":5}},"id":"d",
        "pci_device_id":7,"disable_io_uring":true,"disable_aio":true},
        {"path":"/c","rate_limit_group":"g"}],
        "net":[{"backend":"socket","path":"/p","mode":"server","framing":"stream"},
        {"tap":"t","ip":"10.0.0.1","mask":"255.0.0.0","mac":"02:00:00:00:00:01","mtu":1400,
        "offload_tso":false,"num_queues":4,"queue_size":512,"forward":["tcp:1:2","udp:3:4"]}],
        "rng":{"src":"/r"},"vsock":{"cid":5,"socket":"/v"}}
        """

    @Test("the whole of it survives being told and read again")
    func roundTrip() throws {
        let first = try configuration(Self.whole)
        let told = first.json
        let again = try MachineConfiguration(json: told)
        let isSame = again.json == told
        #expect(isSame)
        let given = try JSONParser.parse(Array(Self.whole.utf8))
        #expect(Self.missing(given, from: told, "") == [])
    }

    /// The paths of what is in `given`, and not or otherwise in `told`.
    private static func missing(
        _ given: JSONValue, from told: JSONValue?, _ path: String
    ) -> [String] {
        switch given {
        case .object(let members):
            return members.flatMap { missing($0.value, from: told?[$0.name], path + "." + $0.name) }
        case .array(let values):
            guard case .array(let others)? = told, others.count == values.count else {
                return [path]
            }
            return zip(values, others).flatMap { missing($0, from: $1, path + "[]") }
        default: return given == told ? [] : [path]
        }
    }

    @Test("what it says is what the command line says")
    func agreement() throws {
        let words = [
            "--kernel", "/k", "--cpus", "boot=2", "--memory", "size=1G", "--disk",
            "path=\"/a,b\",readonly=on,bw_size=1M,bw_refill_time=100,image_type=qcow2",
            "--net", "tap=t", "--serial", "tty", "--vsock", "cid=3,socket=/v",
        ]
        let told = try CommandLineArguments(words).configuration.json
        let read = try MachineConfiguration(json: told)
        let disk = try #require(read.devices.compactMap { $0 as? BlockSpec }.first)
        #expect(disk.path == "/a,b" && disk.isReadOnly == true && disk.format == .qcow2)
        #expect(told["cpus"]?["max_vcpus"] == .number("2"))
        #expect(told["memory"]?["size"] == .number("1073741824"))
        #expect(told["console"]?["mode"] == .string("Off"))
        let limits = MachineConfiguration.HostLimits(maximumVCPUs: 8, physicalAddressBits: 40)
        #expect(try read.validate(limits).devices.map(\.id).contains("_disk0"))
    }

    @Test("what nobody says has its default")
    func defaults() throws {
        let told = try configuration(#"{"payload":{"kernel":"/k"},"disks":[{"path":"/d"}]}"#).json
        #expect(told["cpus"]?["boot_vcpus"] == .number("1"))
        #expect(told["memory"]?["size"] == .number("536870912"))
        #expect(told["serial"]?["mode"] == .string("Null"))
        #expect(told["console"]?["mode"] == .string("Tty"))
        #expect(told["rng"]?["src"] == .string("/dev/urandom"))
        guard case .array(let disks)? = told["disks"] else { return #expect(Bool(false)) }
        #expect(disks[0]["num_queues"] == .number("1"))
        #expect(disks[0]["image_type"] == .string("Unknown"))
        #expect(disks[0]["readonly"] == .bool(false))
        #expect(disks[0]["id"] == nil)
    }

    @Test("the names that devices got are told with them")
    func names() throws {
        var configuration = try configuration(
            #"{"payload":{"kernel":"/k"},"net":[{}],"disks":[{"path":"/d"},{"path":"/e","id":"x"}]}"#
        )
        let limits = MachineConfiguration.HostLimits(maximumVCPUs: 8, physicalAddressBits: 40)
        configuration.takeNames(try configuration.validate(limits))
        guard case .array(let disks)? = configuration.json["disks"],
            case .array(let nets)? = configuration.json["net"]
        else { return #expect(Bool(false)) }
        #expect(disks.map { $0["id"] } == [.string("_disk0"), .string("x")])
        #expect(nets.map { $0["id"] } == [.string("_net2")])
    }

    @Test("numbers of descriptors are refused, for they are another process's")
    func descriptors() throws {
        let text = #"{"payload":{"kernel":"/k"},"net":[{"fds":[]},{"fds":[3]},{"fds":null}]}"#
        #expect(
            try mistakes(text) == [
                "net[1].fds: numbers of descriptors mean nothing to another process"
            ])
    }

    @Test("all mistakes are told, each by its path")
    func paths() throws {
        let text = """
            {"payload":{"kernel":7,"firmware":"/f"},"cpus":{"boot_vcpus":-1},
            "memory":{"size":"1G","hugepages":true},"disks":[{"path":"/d"},
            {"path":"/e","num_queues":70000},{"readonly":1,"image_type":"Floppy"},
            {"path":"/f","rate_limiter_config":{"bandwith":{},"ops":{"sice":1}}}],
            "net":{},"serial":{"mode":"File"},"fs":[{"tag":"t"}],"console":null,"unknown":[1],
            "vsock":{"cid":3},"balloon":null,"numa":[],"iommu":false}
            """
        #expect(
            try mistakes(text) == [
                "fs: is not supported yet", "payload.firmware: is not supported yet",
                "payload.kernel: expected a string, found a number",
                "cpus.boot_vcpus: expected a whole number from 0 on, found -1",
                "memory.hugepages: is not supported yet",
                "memory.size: expected a number, found a string",
                "serial 'file': needs a path: file=<path>",
                "disks[1].num_queues '70000': expected a whole number from 0 to 65535",
                "disks[2].readonly: expected true or false, found a number",
                "disks[2].image_type: expected one of Raw, Qcow2, FixedVhd, Vhdx, FlatVmdk,"
                    + " Unknown, found Floppy",
                "disks[3].rate_limiter_config.bandwith: is unknown",
                "disks[3].rate_limiter_config.ops.sice: is unknown",
                "net: expected a list, found an object", "vsock: needs socket=...",
            ])
        #expect(try mistakes("[]") == ["the VM: expected an object, found a list"])
    }

    @Test("mistakes of the meaning have a path too, and say which disk")
    func meaning() throws {
        let machine = try configuration(
            """
            {"payload":{},"disks":[{"path":"/d"},{"path":"/e","queue_size":3,"id":"a"},
            {"path":"/f","id":"a","rate_limiter_config":{"ops":{"size":1}}}]}
            """)
        let limits = MachineConfiguration.HostLimits(maximumVCPUs: 8, physicalAddressBits: 40)
        do throws(ConfigurationError) {
            _ = try machine.validate(limits)
            #expect(Bool(false))
        } catch {
            #expect(
                error.problems.map(\.jsonDescription) == [
                    "payload.kernel: needed: the kernel to boot",
                    "disks[1].queue_size '3': expected a power of two from 4 to 1024",
                    "disks[2].rate_limiter_config.ops.refill_time: expected a number above 0:"
                        + " a limit is a size and a refill time",
                    "disks[2].id 'a': another device has this name",
                ])
            #expect(error.problems.map(\.isConflict) == [false, false, false, true])
        }
    }

    @Test("the socket of the API has three forms")
    func socket() throws {
        #expect(try APISocketSpec("/a=b").place == .path("/a=b"))
        #expect(try APISocketSpec("path=/a,b").place == .path("/a,b"))
        #expect(try APISocketSpec("fd=7").place == .descriptor(7))
        for text in ["", "path=", "fd=", "fd=-1", "fd=x", String(repeating: "x", count: 200)] {
            #expect(throws: ConfigurationProblem.self) { try APISocketSpec(text) }
        }
    }

    @Test("a socket is one monitor's, and a descriptor must be one that listens")
    func opening() throws {
        let path = "/tmp/swiftlet-\(UInt64.random(in: 0 ... .max))"
        defer { for name in [path, path + ".lock"] { _ = unlink(name) } }
        do {
            let first = try APISocketSpec(path).open()
            #expect(throws: ConfigurationProblem.self) { try APISocketSpec(path).open() }
            let number = first.listener.descriptor.rawValue
            let shared = try APISocketSpec("fd=\(number)").open()
            #expect(shared.lock == nil)
            #expect(throws: ConfigurationProblem.self) { try APISocketSpec("fd=0").open() }
            _ = first
        }
        // The first one left its file behind, as a monitor that was killed does.
        #expect(throws: Never.self) { try APISocketSpec(path).open() }
    }

    @Test("a machine is booted at once if the command line says something of one")
    func firstMachine() throws {
        #expect(try CommandLineArguments(["--api-socket", "/s"]).firstMachine == nil)
        #expect(try CommandLineArguments([]).firstMachine != nil)
        let kernel = try CommandLineArguments(["--api-socket", "/s", "--kernel", "/k"])
        #expect(kernel.firstMachine?.kernel == "/k")
        let disk = try CommandLineArguments(["--api-socket", "/s", "--disk", "path=/d"])
        #expect(disk.firstMachine != nil)
    }
}
