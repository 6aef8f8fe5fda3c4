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
            "path=/a,readonly=on,serial=s,queue_size=64,id=d,pci_device_id=3,_disable_io_uring=on"
        let spec = try parse(text, as: BlockSpec.self).get()
        #expect(spec.path == "/a" && spec.isReadOnly == true && spec.serial == "s")
        #expect(spec.queueSize == 64 && spec.id == "d" && spec.pciDevice == 3)
        #expect(spec.disablesRing == true)
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
                "--disk '/a': unknown key; known are path, readonly, serial, queue_size, id, "
                    + "pci_device_id"
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
