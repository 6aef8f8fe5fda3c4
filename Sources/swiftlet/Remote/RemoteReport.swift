import VMMBase
import VMMHost

/// Prints what a monitor answers: as it comes for programs, in columns for people.
struct RemoteReport {
    let isForPeople: Bool
    let verb: String

    /// The answer to a request, which may be empty.
    func print(answer: [UInt8]) {
        guard !answer.isEmpty else { return }
        let text = isForPeople ? table(answer) : nil
        write(text ?? String(decoding: answer, as: UTF8.self) + "\n")
    }

    /// One line of the events.
    func print(event: [UInt8]) {
        let text = isForPeople ? (try? JSONParser.parse(event)).map(Self.sentence) : nil
        write((text ?? String(decoding: event, as: UTF8.self)) + "\n")
    }

    private func write(_ text: String) { FileDescriptor.standardOutput.writeAll(text) }

    private func table(_ answer: [UInt8]) -> String? {
        guard let json = try? JSONParser.parse(answer) else { return nil }
        switch verb {
        case "counters": return Self.columns(Self.counters(json))
        case "info": return Self.info(json)
        default: return Self.columns(json.members.map { [$0.name, $0.value.plain] })
        }
    }

    // MARK: tables

    private static func counters(_ json: JSONValue) -> [[String]] {
        [["DEVICE", "COUNTER", "VALUE"]]
            + json.members.flatMap { device in
                device.value.members.map { [device.name, $0.name, $0.value.plain] }
            }
    }

    /// The machine first, then a line for each of its devices.
    private static func info(_ json: JSONValue) -> String {
        let configuration = json["config"] ?? .null
        var machine = [["STATE", (json["state"] ?? .null).plain]]
        if let memory = json["memory_actual_size"].flatMap({ UInt64($0.plain) }) {
            machine.append(["MEMORY", ByteSize.text(memory)])
        }
        if let cpus = configuration["cpus"]?["boot_vcpus"] {
            machine.append(["CPUS", cpus.plain])
        }
        for member in (configuration["payload"] ?? .null).members {
            machine.append([member.name.uppercased(), member.value.plain])
        }
        var devices = [["DEVICE", "KIND", "WHAT"]]
        for section in configuration.members
        where !["payload", "cpus", "memory", "platform"].contains(section.name) {
            for device in section.value.elements ?? [section.value] {
                devices.append([(device["id"] ?? "-").plain, section.name, device.gist])
            }
        }
        return columns(machine) + "\n" + columns(devices)
    }

    /// `12.345678 vm booted` and what it is about.
    private static func sentence(_ event: JSONValue) -> String {
        let seconds = (event["timestamp"]?["secs"] ?? 0).plain
        let nanoseconds = (event["timestamp"]?["nanos"] ?? 0).plain
        let fraction = String(repeating: "0", count: max(0, 9 - nanoseconds.count)) + nanoseconds
        let time = String(repeating: " ", count: max(0, 6 - seconds.count)) + seconds
        let words = [event["source"], event["event"]].compactMap { $0?.plain }
        let about = (event["properties"] ?? .null).members.map { "\($0.name)=\($0.value.plain)" }
        return ([time + "." + fraction.prefix(6)] + words + about).joined(separator: " ")
    }

    private static func columns(_ rows: [[String]]) -> String {
        let count = rows.map(\.count).max() ?? 0
        let widths = (0..<count).map { column in
            rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0
        }
        return rows.map { row in
            let cells = row.enumerated().map { column, text in
                // Nothing is added behind the last.
                column == row.count - 1
                    ? text : text + String(repeating: " ", count: widths[column] - text.count + 2)
            }
            return cells.joined() + "\n"
        }.joined()
    }
}

extension JSONValue {
    fileprivate var members: [Member] {
        if case .object(let members) = self { members } else { [] }
    }

    fileprivate var elements: [JSONValue]? {
        if case .array(let values) = self { values } else { nil }
    }

    /// A text without its quotes; anything else as JSON has it. A guest, or who made a
    /// configuration, must not steer the terminal.
    fileprivate var plain: String {
        guard case .string(let text) = self else {
            return String(decoding: self.text(), as: UTF8.self)
        }
        return String(
            text.map {
                $0.unicodeScalars.contains { $0.value < 0x20 || $0.value == 0x7f } ? "?" : $0
            })
    }

    /// What tells devices of a kind apart.
    fileprivate var gist: String {
        let names = ["mode", "path", "tap", "file", "socket", "src", "cid", "mac", "ip"]
        return names.compactMap { name in
            self[name].map { "\(name)=\($0.plain)" }
        }.joined(separator: " ")
    }
}
