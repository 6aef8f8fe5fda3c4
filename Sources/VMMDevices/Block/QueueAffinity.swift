import VMMBase
import VMMHost

/// Which host CPUs the thread of each queue keeps to, as CH spells it: `[0@[1,3-5],1@[2]]`.
package struct QueueAffinity: Decodable, Equatable, Sendable {
    /// CPUs by queue; a queue that is not named runs anywhere.
    package let cpus: [Int: [Int]]

    package init(from decoder: any Decoder) throws {
        let text = try decoder.singleValueContainer().decode(String.self)
        guard let cpus = Self.parse(text) else {
            throw DecodingError.dataCorrupted(
                .init(codingPath: decoder.codingPath, debugDescription: "no queue affinity"))
        }
        self.cpus = cpus
    }

    private static func parse(_ text: String) -> [Int: [Int]]? {
        guard let inner = brackets(text[...]) else { return nil }
        var result: [Int: [Int]] = [:]
        for entry in pieces(inner) {
            let parts = entry.split(
                separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, let queue = UInt16(parts[0]),
                let list = brackets(parts[1]), let cpus = numbers(list), !cpus.isEmpty,
                result.updateValue(cpus, forKey: Int(queue)) == nil
            else { return nil }
        }
        return result.isEmpty ? nil : result
    }

    private static func brackets(_ text: Substring) -> Substring? {
        text.first == "[" && text.last == "]" && text.count > 2
            ? text.dropFirst().dropLast() : nil
    }

    /// Splits at commas outside brackets.
    private static func pieces(_ text: Substring) -> [Substring] {
        var result: [Substring] = []
        var depth = 0
        var start = text.startIndex
        for index in text.indices {
            switch text[index] {
            case "[": depth += 1
            case "]": depth -= 1
            case "," where depth == 0:
                result.append(text[start..<index])
                start = text.index(after: index)
            default: break
            }
        }
        return result + [text[start...]]
    }

    /// `1,3-5`.
    private static func numbers(_ text: Substring) -> [Int]? {
        var result: [Int] = []
        for item in text.split(separator: ",", omittingEmptySubsequences: false) {
            let ends = item.split(separator: "-", omittingEmptySubsequences: false).map {
                Int($0)
            }
            guard (1...2).contains(ends.count), let first = ends[0],
                let last = ends[ends.count - 1],
                first >= 0, first <= last, last < LoopThread.cpuLimit
            else { return nil }
            result += first...last
        }
        return result
    }
}
