import VMMBase
import VMMHost

/// Which requests go wrong, and how.
package struct FaultRule: Sendable {
    package enum Operation: CaseIterable, Sendable {
        case read, write, writeZeros, discard, resize, synchronize
    }

    package enum Effect: Sendable {
        /// Nothing happens but the error.
        case fail(code: Int32)
        /// The request is done later.
        case delay(nanoseconds: UInt64)
        /// Of a read or write only the first sectors are done, and then it fails.
        case tear(code: Int32)
        /// Nothing happens, and success is reported: what a lying disk does.
        case drop
    }

    package var operations: Set<Operation>
    package var effect: Effect
    /// Only requests that touch these bytes; those without a range match always.
    package var range: Range<UInt64> = 0..<UInt64.max
    /// In thousandths.
    package var probability: UInt32 = 1000
    /// So many matching requests are left alone first.
    package var skip = 0
    /// How many requests suffer.
    package var limit = Int.max

    package init(_ operations: Set<Operation>, _ effect: Effect) {
        self.operations = operations
        self.effect = effect
    }
}

/// A file on which requests go wrong by rules and a seed: for tests, and for machines that shall
/// meet bad disks. The first rule that hits a request decides.
package final class FaultyFile: ImageFile {
    package var path: String { file.path }
    package var isReadOnly: Bool { file.isReadOnly }
    /// No engine may go past the rules.
    package var descriptor: FileDescriptor? { nil }
    package var alignment: Int { 1 }
    /// Requests so far that change the file or synchronize it.
    package private(set) var changeCount = 0
    package private(set) var hasLostWrites = false
    /// May change while the file is used.
    package var rules: [FaultRule]

    private let file: any ImageFile
    private var random: SeededGenerator
    /// Waits so many nanoseconds on the calling thread.
    private let pause: (UInt64) -> Void

    package init(
        _ file: any ImageFile, rules: [FaultRule], seed: UInt64,
        pause: @escaping (UInt64) -> Void = { _ in }
    ) {
        self.file = file
        self.rules = rules
        self.pause = pause
        random = SeededGenerator(seed: seed)
    }

    /// What becomes of a request after the rules: how many of its bytes are done, and the error.
    private struct Verdict {
        var count: UInt64
        var error: HostError?
    }

    private func judge(
        _ operation: FaultRule.Operation, at offset: UInt64 = 0, count: UInt64 = .max
    ) -> Verdict {
        if operation != .read { changeCount += 1 }
        guard let effect = effect(on: operation, offset, count) else {
            return Verdict(count: count)
        }
        switch effect {
        case .fail(let code): return Verdict(count: 0, error: HostError("do", path, code: code))
        case .tear(let code):
            let part = count == .max ? 0 : UInt64.random(in: 0..<max(count, 1), using: &random)
            // Disks write sectors whole.
            let end = (offset &+ part) & ~511
            return Verdict(
                count: end > offset ? end - offset : 0, error: HostError("do", path, code: code))
        case .drop: return Verdict(count: 0)
        case .delay(let nanoseconds):
            pause(nanoseconds)
            return Verdict(count: count)
        }
    }

    private func effect(
        on operation: FaultRule.Operation, _ offset: UInt64, _ count: UInt64
    ) -> FaultRule.Effect? {
        for index in rules.indices {
            let rule = rules[index]
            let end = offset.addingReportingOverflow(count)
            guard rule.operations.contains(operation), rule.limit > 0,
                offset < rule.range.upperBound,
                end.overflow || end.partialValue > rule.range.lowerBound,
                UInt32.random(in: 0..<1000, using: &random) < rule.probability
            else { continue }
            if rule.skip > 0 {
                rules[index].skip -= 1
                continue
            }
            rules[index].limit -= 1
            return rule.effect
        }
        return nil
    }

    // MARK: ImageFile

    package func byteCount() throws(HostError) -> UInt64 { try file.byteCount() }

    package func read(
        into bytes: inout MutableSpan<UInt8>, at offset: UInt64
    ) throws(HostError) -> Int {
        let verdict = judge(.read, at: offset, count: UInt64(bytes.count))
        var part = bytes._mutatingExtracting(0..<Int(verdict.count))
        let count = try file.read(into: &part, at: offset)
        if let error = verdict.error { throw error }
        return count
    }

    package func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(HostError) {
        let verdict = judge(.write, at: offset, count: UInt64(bytes.count))
        if verdict.count > 0 {
            try file.write(bytes.extracting(0..<Int(verdict.count)), at: offset)
        }
        if let error = verdict.error { throw error }
    }

    package func writeZeros(
        at offset: UInt64, count: UInt64, mayUnmap: Bool
    ) throws(HostError) {
        let verdict = judge(.writeZeros, at: offset, count: count)
        try file.writeZeros(at: offset, count: verdict.count, mayUnmap: mayUnmap)
        if let error = verdict.error { throw error }
    }

    package func discard(at offset: UInt64, count: UInt64) throws(HostError) {
        let verdict = judge(.discard, at: offset, count: count)
        try file.discard(at: offset, count: verdict.count)
        if let error = verdict.error { throw error }
    }

    package func resize(to byteCount: UInt64) throws(HostError) {
        let verdict = judge(.resize)
        if let error = verdict.error { throw error }
        if verdict.count > 0 { try file.resize(to: byteCount) }
    }

    package func synchronize() throws(HostError) {
        let verdict = judge(.synchronize)
        if let error = verdict.error {
            hasLostWrites = true
            throw error
        }
        if verdict.count > 0 { try file.synchronize() }
    }

    package func allocatedRange(from offset: UInt64) throws(HostError) -> Range<UInt64>? {
        try file.allocatedRange(from: offset)
    }
}
