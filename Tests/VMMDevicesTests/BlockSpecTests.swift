import Foundation
import Testing
import VMMBase
import VMMHost
import VMMTestSupport

@testable import VMMDevices

/// Parses an option's value as the command line does; errors as the user reads them.
func parse<Spec: DeviceSpec>(_ text: String, as _: Spec.Type) -> Result<Spec, ConfigurationProblem>
{
    Result { () throws(ConfigurationProblem) in
        try Spec.parse(try OptionText(text, option: Spec.option))
    }
}

/// The mistakes of a value that can be parsed, or the one for which it cannot.
func problems<Spec: DeviceSpec>(_ text: String, as type: Spec.Type) -> [String] {
    switch parse(text, as: type) {
    case .success(let spec): spec.problems().map(\.description)
    case .failure(let problem): [problem.description]
    }
}

@Suite("BlockSpec")
struct BlockSpecTests {
    @Test("every key is understood")
    func everyKey() throws {
        let text =
            "path=/a,readonly=on,serial=s,queue_size=64,id=d,pci_device_id=3,_disable_io_uring=on,"
            + "image_type=qcow2,backing_files=on,direct=on,sparse=off,lock_granularity=full,"
            + "num_queues=4,queue_affinity=[0@[1,3-5],3@[0]],bw_size=1M,bw_refill_time=100,bw_one_time_burst=1K,ops_size=5,"
            + "ops_refill_time=7,ops_one_time_burst=9,_disable_aio=on"
        let spec = try parse(text, as: BlockSpec.self).get()
        #expect(spec.path == "/a" && spec.isReadOnly == true && spec.serial == "s")
        #expect(spec.queueSize == 64 && spec.id == "d" && spec.place.device == 3)
        #expect(spec.disablesRing == true && spec.disablesAIO == true)
        #expect(spec.format == .qcow2 && spec.allowsBackingFiles == true)
        #expect(spec.isDirect == true && spec.isSparse == false && spec.lock == .full)
        #expect(spec.queueCount == 4 && spec.limits.isGiven)
        #expect(spec.queueAffinity?.cpus == [0: [1, 3, 4, 5], 3: [0]])
        #expect(spec.problems().isEmpty)
    }

    @Test("a path is enough")
    func minimal() {
        #expect(problems("path=/a", as: BlockSpec.self) == [])
    }

    @Test(
        "mistakes are named with their value",
        arguments: [
            ("readonly=on", "--disk: needs path=..."),
            ("path=", "--disk: needs path=..."),
            (
                "/a",
                "--disk '/a': unknown key; known are path, readonly, image_type, backing_files, "
                    + "direct, sparse, lock_granularity, serial, num_queues, queue_affinity, "
                    + "queue_size, bw_size, bw_refill_time, bw_one_time_burst, ops_size, "
                    + "ops_refill_time, ops_one_time_burst, rate_limit_group, id, pci_segment, pci_device_id"
            ),
            ("path", "--disk 'path': needs a value: path=..."),
            ("path=/a,readonly=maybe", "--disk readonly 'maybe': expected on or off"),
            (
                "path=/a,queue_size=2",
                "--disk queue_size '2': expected a power of two from 4 to "
                    + "1024"
            ),
            (
                "path=/a,queue_size=2048",
                "--disk queue_size '2048': expected a power of two from 4 "
                    + "to 1024"
            ),
            (
                "path=/a,queue_size=65536",
                "--disk queue_size '65536': expected a whole number from "
                    + "0 to 65535"
            ),
            (
                "path=/a,serial=123456789012345678901",
                "--disk serial '123456789012345678901': at "
                    + "most 20 bytes"
            ),
            ("path=/a,num_queues=0", "--disk num_queues '0': expected 1 to 256"),
            (
                "path=/a,image_type=vdi",
                "--disk image_type 'vdi': expected one of raw, qcow2, vhd, vhdx, vmdk"
            ),
            (
                "path=/a,lock_granularity=none",
                "--disk lock_granularity 'none': expected one of byte-range, full"
            ),
            (
                "path=/a,bw_size=1M,bw_refill_time=0",
                "--disk bw_refill_time '0': expected a number above 0: a limit is a size and a "
                    + "refill time"
            ),
            (
                "path=/a,ops_size=10",
                "--disk ops_refill_time: expected a number above 0: a limit is a size and a "
                    + "refill time"
            ),
            (
                "path=/a,rate_limit_group=g,ops_size=10,ops_refill_time=1",
                "--disk rate_limit_group 'g': excludes limits of the disk's own"
            ),
            ("path=/a,path=/b", "--disk 'path=/a,path=/b': the key 'path' is given twice"),
        ])
    func mistakes(text: String, expected: String) {
        #expect(problems(text, as: BlockSpec.self) == [expected])
    }

    @Test("several mistakes are told at once")
    func allAtOnce() {
        let text = "path=/a,queue_size=3,serial=\(String(repeating: "x", count: 21))"
        #expect(problems(text, as: BlockSpec.self).count == 2)
    }

    @Test(
        "an affinity that names no CPUs of a queue is a mistake",
        arguments: [
            "[]", "0@[1]", "[0]", "[0@1]", "[0@[]]", "[0@[3-1]]", "[0@[1024]]", "[0@[-1]]",
            "[0@[1],0@[2]]", "[0@[1,]]", "[x@[1]]", "[0@[1]", "[1@[0]]",
        ])
    func badAffinity(text: String) {
        let found = problems("path=/a,queue_affinity=\(text)", as: BlockSpec.self)
        #expect(found.count == 1)
    }

    @Test("a group that nobody made is the user's mistake")
    func unknownGroup() throws {
        let spec = try parse("path=/dev/null,rate_limit_group=g", as: BlockSpec.self).get()
        let context = DeviceContext(id: "_disk0", loop: try EventLoop(), clock: ManualClock())
        let problem = #expect(throws: ConfigurationProblem.self) { try spec.build(context) }
        #expect(problem?.description == "--disk rate_limit_group 'g': there is no such group")
    }

    @Test("an image that cannot be opened is the user's mistake, named by its key")
    func build() throws {
        let spec = try parse("path=/nonexistent/disk", as: BlockSpec.self).get()
        let context = DeviceContext(id: "_disk0", loop: try EventLoop(), clock: ManualClock())
        let problem = #expect(throws: ConfigurationProblem.self) { try spec.build(context) }
        #expect(
            problem?.description
                == "--disk path '/nonexistent/disk': No such file or directory")
    }
}
