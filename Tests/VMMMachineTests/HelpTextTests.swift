import Testing
import VMMBase
import VMMDevices

@testable import VMMMachine

@Suite("HelpText")
struct HelpTextTests {
    private let text = HelpText.render(program: "swiftlet-vmm")

    /// Fields that a user may know of.
    private func shown(_ fields: [OptionField]) -> [OptionField] { fields.filter { !$0.isHidden } }

    @Test("every device is listed, with every field and its default")
    func devices() {
        for type in DeviceCatalog.all {
            #expect(text.contains("  \(type.option) "))
            #expect(text.contains(type.summary))
            for field in shown(type.fields) {
                #expect(text.contains(field.key.isEmpty ? field.placeholder : "\(field.key)="))
                #expect(text.contains(field.summary))
                guard let standard = field.defaultValue else { continue }
                #expect(text.contains("[\(standard)]"))
            }
        }
    }

    @Test("every field of processors and memory is listed")
    func machine() {
        for field in shown(CPUSpec.fields + MemorySpec.fields) {
            #expect(text.contains("      \(field.key)=\(field.placeholder)"))
        }
    }

    @Test("every option without fields is listed, and each is an option that exists")
    func plainOptions() throws {
        let flags = ["-v", "--version, -V", "--help, -h", "--no-shutdown"]
        for (option, _, _) in CommandLineArguments.plain {
            #expect(text.contains("  \(option)"))
        }
        for (option, _, _) in CommandLineArguments.plain where !flags.contains(option) {
            let words = ["--seccomp": "log", "--landlock": "off"]
            _ = try CommandLineArguments([option, words[option] ?? "value"])
        }
    }

    @Test("hidden fields are not listed")
    func hidden() {
        #expect(!text.contains("_disable_io_uring"))
    }

    @Test("a line is no longer than a terminal is wide")
    func width() {
        let long = text.split(separator: "\n").filter { $0.count > 120 }
        #expect(long.isEmpty)
    }
}
