import Testing
import VMMBase

@testable import VMMMachine

/// A field of a section; the test's argument.
struct SchemaPlace: Sendable, CustomTestStringConvertible {
    let section: ConfigurationSection
    let field: OptionField

    var testDescription: String { "\(section.json).\(field.path.joined(separator: "."))" }

    /// A machine in which the field has this value, or none, and all that is required with it
    /// is there.
    func machine(_ value: JSONValue?) -> JSONValue {
        var object = JSONValue.object([])
        for other in section.fields where other.isRequired && isBeside(other) {
            object.set(other.example, at: other.path[...])
        }
        // Number 0 is the host bridge's on the first of the buses.
        if field.path == ["pci_device_id"] { object.set(1, at: ["pci_segment"]) }
        // A segment that there is, with which no other has to share a window.
        if section.json == "pci_segments" { object.set(0, at: ["pci_segment"]) }
        object.set(value ?? .null, at: field.path[...])
        var machine: JSONValue = ["payload": ["kernel": "/k"]]
        if field.path[0].hasPrefix("pci_") {
            machine.set(96, at: ["platform", "num_pci_segments"])
        }
        machine.set(section.isList ? [object] : object, at: [section.json])
        return machine
    }

    /// In the object itself, or in the one that the field is in.
    private func isBeside(_ other: OptionField) -> Bool {
        other.path.count == 1 || other.path.dropLast() == field.path.dropLast()
    }

    /// The mistakes, at the field's path.
    func mistakes(_ value: JSONValue?) -> [String] {
        let limits = MachineConfiguration.HostLimits(
            maximumVCPUs: CPUSpec.packageLimit, physicalAddressBits: 46)
        do throws(ConfigurationError) {
            _ = try MachineConfiguration(json: machine(value)).validate(limits)
            return []
        } catch {
            return error.problems.map(\.jsonDescription)
        }
    }
}

/// The schemas say what the code does.
@Suite("Schemas of a configuration")
struct ConfigurationSchemaTests {
    private static let places = ConfigurationSection.all.flatMap { section in
        section.fields.map { SchemaPlace(section: section, field: $0) }
    }
    private static let ranged = places.filter { place in
        guard case .number = place.field.form else { return false }
        return place.field.range != 0...UInt64.max
    }
    private static let needed = places.filter(\.field.isRequired)

    @Test("there are fields to look at")
    func some() {
        #expect(Self.ranged.count >= 15)
        #expect(Self.needed.count >= 10)
    }

    @Test("the ends of each range are allowed", arguments: ranged)
    func ends(place: SchemaPlace) {
        for value in [place.field.range.lowerBound, place.field.range.upperBound] {
            #expect(place.mistakes(.number("\(value)")) == [])
        }
    }

    @Test("what is outside of a range is refused", arguments: ranged)
    func outside(place: SchemaPlace) {
        let range = place.field.range
        for value in [range.lowerBound &- 1, range.upperBound &+ 1] where !range.contains(value) {
            #expect(place.mistakes(.number("\(value)")) != [])
        }
    }

    @Test("what is required cannot be left out", arguments: needed)
    func omission(place: SchemaPlace) {
        let without = place.mistakes(nil)
        #expect(without != [])
        #expect(place.mistakes(place.field.example) != without)
    }

    @Test("a default is a value that the schema allows", arguments: places)
    func defaults(place: SchemaPlace) throws {
        let schema = place.field.schema
        guard let value = schema["default"] else { return }
        #expect(place.mistakes(value).filter { $0.contains(place.field.path.last ?? "") } == [])
    }

    @Test("each part of a machine has its schema, and the names of its members")
    func names() throws {
        let schemas = MachineConfiguration.schemas
        let disk = try #require(schemas.first { $0.name == "DiskConfig" }?.value)
        #expect(disk["required"] == ["path"])
        #expect(disk["properties"]?["queue_size"]?["maximum"] == 1024)
        let bucket = disk["properties"]?["rate_limiter_config"]?["properties"]?["bandwidth"]
        #expect(bucket?["required"] == ["size", "refill_time"])
        #expect(bucket?["additionalProperties"] == false)
        let console = try #require(schemas.first { $0.name == "ConsoleConfig" }?.value)
        #expect(
            console["properties"]?["mode"]?["enum"]
                == ["Off", "Null", "Tty", "Pty", "File", "Socket"])
        #expect(console["properties"]?["socket"]?["type"] == "string")
    }
}

extension OptionField {
    /// A value that is allowed.
    fileprivate var example: JSONValue {
        if case .number = form { return .number("\(max(range.lowerBound, 8))") }
        return "/example"
    }
}
