import Testing

@testable import VMMBase

@Suite("JSON")
struct JSONTests {
    private func parse(_ text: String) throws(JSONError) -> JSONValue {
        try JSONParser.parse(Array(text.utf8))
    }

    private func refusal(_ text: String) -> String {
        do throws(JSONError) {
            _ = try parse(text)
            return "accepted"
        } catch {
            return error.description
        }
    }

    // MARK: text

    @Test(
        "what is written is what was read, without space",
        arguments: [
            ("null", "null"), (" [ ] ", "[]"), ("{\"b\" : 1,\n\"a\":[true,false,null]}", ""),
            ("-0.5e+10", ""), ("18446744073709551615", ""),
            ("\"\\u0041\\n\\u001f\"", "\"A\\n\\u001f\""),
            ("\"\\ud83d\\ude00 \\/ \\\" \\\\\"", "\"😀 / \\\" \\\\\""),
            ("\"\\b\\f\"", "\"\\u0008\\u000c\""),
            ("{\"\":{}}", "{\"\":{}}"),
        ])
    func roundTrips(text: String, expected: String) throws {
        let written = String(decoding: try parse(text).text(), as: UTF8.self)
        let unspaced = text.filter { !$0.isWhitespace }
        #expect(written == (expected.isEmpty ? unspaced : expected))
        #expect(try parse(written) == parse(text))
    }

    @Test("indented text has a line for each value")
    func indents() throws {
        let text = try parse("{\"a\":[1,{}],\"b\":[]}").text(isIndented: true)
        #expect(
            String(decoding: text, as: UTF8.self)
                == "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}")
    }

    @Test(
        "what is no JSON is refused, with the place",
        arguments: [
            ("", "expected a value at byte 0"), ("[1,]", "expected a value at byte 3"),
            ("[1 2]", "expected , or ] at byte 3"), ("{\"a\" 1}", "expected : at byte 5"),
            ("{a:1}", "expected a name at byte 1"), ("{\"a\":1,\"a\":2}", "'a' is there twice"),
            ("{\"a\":1", "expected , or } at byte 6"), ("01", "expected the end at byte 1"),
            ("1.", "expected a value at byte 2"), ("+1", "expected a value at byte 0"),
            ("nul", "expected a value"), ("\"", "a string does not end"),
            ("\"\n\"", "a control character"), ("\"\\x\"", "no such escape"),
            ("\"\\u12\"", "four hex digits"), ("\"\\u+123\"", "four hex digits"),
            ("\"\\ud800\"", "half a character"), ("\"\\ud800\\u0041\"", "half a character"),
            ("\"\\udc00\"", "half a character"), ("1 1", "expected the end"),
        ])
    func refuses(text: String, reason: String) {
        #expect(refusal(text).contains(reason), "\(refusal(text))")
    }

    @Test("text that is no UTF-8 is refused")
    func invalidText() {
        #expect(throws: JSONError.self) { try JSONParser.parse([0x22, 0xff, 0x22]) }
        #expect(throws: JSONError.self) { try JSONParser.parse([0x22, 0xc0, 0x80, 0x22]) }
    }

    @Test("strings are bounded, and so is the work of sorting one character's marks")
    func strings() {
        let text = String(repeating: "s", count: JSONParser.stringLimit)
        #expect(refusal("\"\(text)\"") == "accepted")
        #expect(refusal("\"\(text)s\"").contains("more than 8192 bytes"))
        // Two marks of different classes, in the wrong order: a day's work for Swift's hashing.
        let marks =
            String(repeating: "\u{301}", count: 1 << 19)
            + String(repeating: "\u{323}", count: 1 << 19)
        #expect(refusal("{\"\(marks)\":1}").contains("more than 8192 bytes"))
    }

    @Test("depth and number of values are bounded")
    func bounds() throws {
        let deep = JSONParser.depthLimit
        _ = try parse(String(repeating: "[", count: deep) + String(repeating: "]", count: deep))
        #expect(refusal(String(repeating: "[", count: deep + 1)).contains("levels"))
        #expect(refusal(String(repeating: "{\"a\":", count: 100_000)).contains("levels"))
        let many = Array(repeating: "0", count: JSONParser.valueLimit).joined(separator: ",")
        #expect(refusal("[\(many)]").contains("values"))
    }

    // MARK: types

    private enum Color: String, OptionChoice, Codable {
        case red = "Red"
        case blue = "Blue"
    }

    private struct Part: Codable, Equatable {
        var path: String
        var size: UInt64?
    }

    private struct Whole: Codable, Equatable {
        var parts: [Part]
        var color: Color?
        var flag: Bool?
        var ratio: Double?
        var small: Int8?
        var names: [String: Int]?
    }

    private func decode(_ text: String) throws(JSONError) -> Whole {
        try JSONDecoder.decode(Whole.self, from: Array(text.utf8))
    }

    @Test("a value of a type is the same after both ways")
    func coding() throws {
        let whole = Whole(
            parts: [Part(path: "/a \"b\"", size: .max), Part(path: "")], color: .blue, flag: false,
            ratio: 0.25, small: -128, names: ["one": 1])
        let json = try JSONEncoder.encode(whole)
        #expect(
            String(decoding: json.text(), as: UTF8.self)
                == "{\"parts\":[{\"path\":\"/a \\\"b\\\"\",\"size\":18446744073709551615},"
                + "{\"path\":\"\"}],\"color\":\"Blue\",\"flag\":false,\"ratio\":0.25,"
                + "\"small\":-128,"
                + "\"names\":{\"one\":1}}")
        #expect(try JSONDecoder.decode(Whole.self, from: json) == whole)
    }

    @Test("null counts as absent, and unknown members are ignored")
    func absence() throws {
        #expect(
            try decode("{\"parts\":[],\"flag\":null,\"more\":[1]}") == Whole(parts: []))
    }

    @Test(
        "errors name the path and what is expected",
        arguments: [
            ("{}", "parts: is missing"), ("[]", "expected an object, found a list"),
            ("{\"parts\":{}}", "parts: expected a list, found an object"),
            (
                "{\"parts\":[{\"path\":\"\"},{\"path\":7}]}",
                "parts[1].path: expected a string, found a number"
            ),
            (
                "{\"parts\":[{\"path\":\"\",\"size\":-1}]}",
                "parts[0].size: expected a whole number from 0 to 18446744073709551615, found -1"
            ),
            (
                "{\"parts\":[],\"small\":128}",
                "small: expected a whole number from -128 to 127, found 128"
            ),
            (
                "{\"parts\":[],\"small\":1.0}",
                "small: expected a whole number from -128 to 127, found 1.0"
            ),
            ("{\"parts\":[],\"color\":\"Green\"}", "color: expected one of Red, Blue"),
            ("{\"parts\":[],\"color\":1}", "color: expected a string, found a number"),
            ("{\"parts\":[],\"flag\":\"on\"}", "flag: expected true or false, found a string"),
            ("{\"parts\":[],\"ratio\":1e999}", "ratio: the number is too large"),
        ])
    func errors(text: String, message: String) {
        let error = #expect(throws: JSONError.self) { try decode(text) }
        #expect(error?.description == message)
    }
}
