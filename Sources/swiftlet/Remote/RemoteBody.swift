import ArgumentParser
import VMMBase
import VMMDevices
import VMMHost

/// What goes with a request: JSON, and descriptors.
struct RemoteBody {
    var json: [UInt8] = []
    var descriptors: [FileDescriptor] = []

    static let nothing = RemoteBody()

    private init() {}

    private init(_ value: JSONValue) { json = value.text() }

    /// The options that a verb knows, by the members that they become.
    init(options: [RemoteVerb.Option], given: [String: String]) throws {
        var object = JSONValue.object([])
        for option in options {
            guard let text = given[option.name] else {
                guard !option.isRequired else {
                    throw ValidationError("--\(option.name) is missing")
                }
                continue
            }
            object.set(
                option.isNumber ? try Self.number(text, "--\(option.name)") : .string(text),
                at: [option.member])
        }
        self.init(object)
    }

    private static func number(_ text: String, _ what: String) throws -> JSONValue {
        guard let size = ByteSize(argument: text) else {
            throw ValidationError(
                "\(what) '\(text)': expected a number, with K, M or G if you like")
        }
        return .number("\(size.byteCount)")
    }

    /// A device as `--disk` and its like tell it; what nobody said is left to the monitor.
    init(device: any DeviceSpec.Type, _ text: String) throws {
        var option = try OptionText(text, option: device.option)
        _ = try device.parse(option)
        for case .descriptors in device.fields.map(\.form) {
            descriptors = try option.takeDescriptors(of: device)
        }
        let given = device.fields.filter { field in option.pairs.contains { $0.key == field.key } }
        json = option.json(fields: given).text()
    }

    /// `key=value,...` of what this program does not know: a word is a word, a number a number.
    init(text: String, bare: String?, what: String) throws {
        if let bare, !text.contains("=") {
            self.init(.object([.init(bare, .string(text))]))
            return
        }
        var object = JSONValue.object([])
        for pair in try OptionText(text, option: what).pairs {
            guard let value = pair.value else {
                throw ValidationError("\(what) '\(pair.key)': expected \(pair.key)=...")
            }
            object.set(Self.guess(value), at: [pair.key])
        }
        self.init(object)
    }

    private static func guess(_ text: String) -> JSONValue {
        switch text {
        case "on", "true": return true
        case "off", "false": return false
        case _ where text.hasPrefix("[") && text.hasSuffix("]"):
            let items = text.dropFirst().dropLast().split(separator: ",")
            return .array(items.map { guess(String($0)) })
        default:
            // A size may end in a unit, a word that only begins as one is a word.
            let digits = "KMG".contains(text.last ?? " ") ? text.dropLast() : text[...]
            guard !digits.isEmpty, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
                let size = ByteSize(argument: text)
            else { return .string(text) }
            return .number("\(size.byteCount)")
        }
    }

    /// All that a file, or standard input, has.
    init(file path: String) throws {
        let file =
            path == "-" ? FileDescriptor.standardInput : try FileDescriptor.open(path, .readOnly)
        while true {
            switch file.read(into: &json, limit: 64 << 10) {
            case .moved: continue
            case .wouldBlock: _ = file.isReady(.readable, waitingMilliseconds: -1)
            case .endOfFile: return
            case .failed(let code): throw HostError("read", path, code: code)
            }
        }
    }
}

extension OptionText {
    /// Takes the descriptors out, whose numbers mean nothing to the monitor.
    fileprivate mutating func takeDescriptors(
        of device: any DeviceSpec.Type
    ) throws -> [FileDescriptor] {
        var rest: [Pair] = []
        var found: [FileDescriptor] = []
        for pair in pairs {
            let field = device.fields.first { $0.key == pair.key }
            guard case .descriptors? = field?.form else {
                rest.append(pair)
                continue
            }
            let numbers = (pair.value ?? "").split { "[,]".contains($0) }.compactMap { Int32($0) }
            found += try numbers.map { try FileDescriptor.inherited($0) }
        }
        self = OptionText(option: option, pairs: rest)
        return found
    }
}
