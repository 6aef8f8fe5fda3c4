import Testing
import VMMBase

/// An option as a device spec would declare it.
private struct Sample: Decodable, Equatable {
    enum Mode: String, OptionChoice, Decodable { case fast, safe }

    var path: String
    var readonly: Bool?
    var size: UInt64?
    var count: UInt16?
    var mode: Mode?
    var list: [UInt8]?

    static let fields = ["path", "readonly", "size", "count", "mode", "list"].map {
        OptionField($0, "<value>", "a field")
    }
}

private func decode(_ text: String) throws -> Sample {
    try OptionDecoder.decode(
        Sample.self, from: OptionText(text, option: "--sample"), fields: Sample.fields)
}

@Suite("OptionDecoder")
struct OptionTests {
    @Test("keys, toggles, sizes, numbers, choices and lists are decoded")
    func everyKind() throws {
        let sample = try decode("path=/a,readonly=on,size=2M,count=7,mode=safe,list=[1,2]")

        #expect(
            sample
                == Sample(
                    path: "/a", readonly: true, size: 2 << 20, count: 7, mode: .safe,
                    list: [1, 2]))
    }

    @Test("commas inside brackets and quotes do not split; doubled quotes are one")
    func quoting() throws {
        #expect(try decode("path=\"a,b\"").path == "a,b")
        #expect(try decode("path=\"say \"\"hi\"\"\"").path == "say \"hi\"")
    }

    @Test("an empty value counts as absent")
    func emptyValue() throws {
        #expect(try decode("path=/a,size=").size == nil)
    }

    @Test(
        "mistakes name the option, the value and what is allowed",
        arguments: [
            ("path=/a,colour=red", "--sample 'colour': unknown key; known are path, readonly"),
            ("path=/a,path=/b", "the key 'path' is given twice"),
            ("path=/a,readonly=maybe", "--sample readonly 'maybe': expected on or off"),
            ("path=/a,size=1T", "--sample size '1T': expected a number of bytes"),
            (
                "path=/a,size=99999999999G",
                "--sample size '99999999999G': expected a number of bytes"
            ),
            (
                "path=/a,count=70000",
                "--sample count '70000': expected a whole number from 0 to 65535"
            ),
            ("path=/a,mode=slow", "--sample mode 'slow': expected one of fast, safe"),
            ("path=/a,list=1", "--sample list '1': expected a list: [a,b]"),
            ("path=/a,list=[1,2", "brackets or quotes do not match"),
            ("readonly=on", "--sample: needs path=..."),
            ("path", "--sample 'path': needs a value: path=..."),
            ("", "expected key=value, separated by commas"),
        ])
    func mistakes(text: String, expected: String) {
        let problem = #expect(throws: ConfigurationProblem.self) { try decode(text) }
        #expect(problem?.description.contains(expected) == true, "\(problem?.description ?? "")")
    }
}
