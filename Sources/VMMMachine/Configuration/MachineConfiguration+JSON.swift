import VMMBase
import VMMDevices

// The configuration in Cloud Hypervisor's JSON (VmConfig).

extension MachineConfiguration {
    /// Reads a machine; all mistakes of its shape at once, by their path. Names that nobody knows
    /// are left alone, as Cloud Hypervisor does, but in `rate_limiter_config`.
    package init(json: JSONValue) throws(ConfigurationError) {
        self.init()
        var problems: [ConfigurationProblem] = []
        if case .object = json {
            Self.refuseMissing(in: json, "", &problems)
            takePayload(json["payload"] ?? .null, &problems)
            takeLandlock(json[Self.landlock] ?? .null, &problems)
            for section in ConfigurationSection.all {
                guard let value = json[section.json], value != .null else { continue }
                take(section, value, &problems)
            }
        } else {
            problems.append(Self.problem(json.mismatch("an object", "")))
        }
        guard problems.isEmpty else { throw ConfigurationError(problems) }
    }

    private static func problem(_ error: JSONError) -> ConfigurationProblem {
        ConfigurationProblem(
            option: error.path.isEmpty ? "the VM" : error.path, value: "", reason: error.reason)
    }

    private static let landlock = "landlock_enable"

    private mutating func takeLandlock(
        _ json: JSONValue, _ problems: inout [ConfigurationProblem]
    ) {
        switch json {
        case .null: break
        case .bool(let isOn): isHeldToFiles = isOn
        default: problems.append(Self.problem(json.mismatch("true or false", Self.landlock)))
        }
    }

    private mutating func takePayload(
        _ json: JSONValue, _ problems: inout [ConfigurationProblem]
    ) {
        guard json != .null else { return }
        guard case .object = json else {
            return problems.append(Self.problem(json.mismatch("an object", "payload")))
        }
        Self.refuseMissing(in: json, "payload", &problems)
        func text(_ name: String, _ problems: inout [ConfigurationProblem]) -> String? {
            guard let value = json[name], value != .null else { return nil }
            if case .string(let text) = value { return text }
            problems.append(Self.problem(value.mismatch("a string", "payload.\(name)")))
            return nil
        }
        kernel = text("kernel", &problems)
        initramfs = text("initramfs", &problems)
        commandLine = text("cmdline", &problems) ?? ""
    }

    private mutating func take(
        _ section: ConfigurationSection, _ json: JSONValue,
        _ problems: inout [ConfigurationProblem]
    ) {
        if section.isFlag { return takeFlag(section, json, &problems) }
        guard section.isList else { return takeOne(section, json, section.json, &problems) }
        guard case .array(let values) = json else {
            return problems.append(Self.problem(json.mismatch("a list", section.json)))
        }
        for (index, value) in values.enumerated() {
            takeOne(section, value, "\(section.json)[\(index)]", &problems)
        }
    }

    private mutating func takeFlag(
        _ section: ConfigurationSection, _ json: JSONValue,
        _ problems: inout [ConfigurationProblem]
    ) {
        guard case .bool(let isOn) = json else {
            return problems.append(Self.problem(json.mismatch("true or false", section.json)))
        }
        guard isOn else { return }
        do throws(ConfigurationProblem) {
            try add(OptionText(option: section.option, pairs: []))
        } catch {
            problems.append(error.inside(section.json))
        }
    }

    private mutating func takeOne(
        _ section: ConfigurationSection, _ json: JSONValue, _ path: String,
        _ problems: inout [ConfigurationProblem]
    ) {
        guard let text = Self.read(section, json, path, &problems) else { return }
        do throws(ConfigurationProblem) {
            try add(text)
        } catch {
            problems.append(error.inside(path))
        }
    }

    /// The option that a JSON object is, or the mistakes of its shape.
    private static func read(
        _ section: ConfigurationSection, _ json: JSONValue, _ path: String,
        _ problems: inout [ConfigurationProblem]
    ) -> OptionText? {
        var errors = section.unknownLimits(in: json, path)
        let text = OptionText(
            json, option: section.option, fields: section.fields, path: path, problems: &errors)
        refuseMissing(in: json, path, &problems)
        problems += errors.map { problem($0) }
        return errors.isEmpty ? text : nil
    }

    /// A device that is described by itself.
    static func read(
        _ type: any DeviceSpec.Type, _ json: JSONValue
    ) throws(ConfigurationError) -> OptionText {
        let section = ConfigurationSection.all.first { $0.option == type.option }
        guard let section else { preconditionFailure("each device has an option") }
        guard case .object = json else {
            throw ConfigurationError([problem(json.mismatch("an object", "the \(type.word)"))])
        }
        var problems: [ConfigurationProblem] = []
        guard let text = read(section, json, "", &problems), problems.isEmpty else {
            throw ConfigurationError(problems)
        }
        do throws(ConfigurationProblem) {
            _ = try type.parse(text)
        } catch {
            throw ConfigurationError([error.inside("")])
        }
        return text
    }

    private static func refuseMissing(
        in json: JSONValue, _ path: String, _ problems: inout [ConfigurationProblem]
    ) {
        guard case .object(let members) = json else { return }
        for member in members
        where ConfigurationSection.missing.contains(member.name) && member.value.asksForSomething {
            problems.append(
                problem(
                    JSONError(
                        path: JSONError.path(path, member.name), reason: "is not supported yet")))
        }
    }

    /// All that was asked for, with the defaults of the rest: what `init(json:)` reads.
    package var json: JSONValue {
        var payload = JSONValue.object([])
        for (name, text) in [
            ("kernel", kernel), ("cmdline", commandLine), ("initramfs", initramfs),
        ] {
            if let text, !text.isEmpty { payload.set(.string(text), at: [name]) }
        }
        var members = [JSONValue.Member("payload", payload)]
        for section in ConfigurationSection.all {
            if section.isFlag {
                let isOn = options.contains { $0.option == section.option }
                members.append(.init(section.json, .bool(isOn)))
                continue
            }
            var objects = options.filter { $0.option == section.option }
                .map { $0.json(fields: section.fields) }
            if objects.isEmpty, section.hasStandard {
                objects = [standard(section)]
            }
            guard let first = objects.first else { continue }
            members.append(.init(section.json, section.isList ? .array(objects) : first))
        }
        if let isHeldToFiles { members.append(.init(Self.landlock, .bool(isHeldToFiles))) }
        return .object(members)
    }

    /// A console that left the terminal to somebody else is switched off.
    private func standard(_ section: ConfigurationSection) -> JSONValue {
        let type = DeviceCatalog.all.first { $0.option == section.option }
        let isOff = type.map { standardDevice($0) == nil } ?? false
        let pairs = isOff ? [OptionText.Pair(key: "off", value: nil)] : []
        return OptionText(option: section.option, pairs: pairs).json(fields: section.fields)
    }
}

extension ConfigurationProblem {
    /// The same mistake in an object at `path`, whatever number its option has among its kind.
    fileprivate func inside(_ path: String) -> ConfigurationProblem {
        let suffix = ConfigurationSection.path(self).drop { $0 != "." }
        let place = path.isEmpty ? String(suffix.dropFirst()) : path + suffix
        return ConfigurationProblem(
            option: place.isEmpty ? "the device" : place, value: value, reason: reason)
    }
}

extension ConfigurationSection {
    private static let limiter = "rate_limiter_config"

    /// Members of the rate limits that no field names: a limit that is misspelled would be none.
    func unknownLimits(in json: JSONValue, _ path: String) -> [JSONError] {
        guard let limits = json[Self.limiter], case .object(let buckets) = limits else { return [] }
        let paths = fields.map(\.path).filter { $0.first == Self.limiter && $0.count == 3 }
        let place = JSONError.path(path, Self.limiter)
        return buckets.flatMap { bucket -> [JSONError] in
            let known = paths.filter { $0[1] == bucket.name }.map { $0[2] }
            let here = JSONError.path(place, bucket.name)
            guard !known.isEmpty else { return [JSONError(path: here, reason: "is unknown")] }
            guard case .object(let members) = bucket.value else {
                return bucket.value == .null ? [] : [bucket.value.mismatch("an object", here)]
            }
            return members.filter { !known.contains($0.name) }.map {
                JSONError(path: JSONError.path(here, $0.name), reason: "is unknown")
            }
        }
    }
}

extension JSONValue {
    /// Whether it says anything but no, none and nothing.
    fileprivate var asksForSomething: Bool {
        switch self {
        case .null: false
        case .bool(let flag): flag
        case .number(let text): text != "0"
        case .string(let text): !text.isEmpty
        case .array(let values): !values.isEmpty
        case .object(let members): members.contains { $0.value.asksForSomething }
        }
    }
}
