import Testing

/// The budgets of DESIGN section 9.
@Suite("Budgets")
struct BudgetTests {
    private static let lineLength = 100
    private static let fileLines = 400
    private static let functionLines = 70
    private static let parameters = 6
    private static let nesting = 4

    @Test("no line is longer than 100 columns", arguments: Repository.sources)
    func lines(file: Repository.SourceFile) {
        let long = file.lines.enumerated().filter { $0.element.count > Self.lineLength }
        #expect(long.isEmpty, "lines \(long.map { $0.offset + 1 })")
    }

    @Test("no file has more than 400 lines of code", arguments: Repository.sources)
    func files(file: Repository.SourceFile) {
        #expect(file.codeLines.count <= Self.fileLines)
    }

    @Test("no function has more than 70 lines", arguments: Repository.sources)
    func functions(file: Repository.SourceFile) {
        let long = SwiftFunction.all(in: file).filter { $0.lineCount > Self.functionLines }
        #expect(long.isEmpty, "\(long.map(\.name))")
    }

    @Test("no function nests deeper than 4", arguments: Repository.sources)
    func nesting(file: Repository.SourceFile) {
        let deep = SwiftFunction.all(in: file).filter { $0.depth > Self.nesting }
        #expect(deep.isEmpty, "\(deep.map(\.name))")
    }

    @Test("no function takes more than 6 parameters", arguments: Repository.sources)
    func parameters(file: Repository.SourceFile) {
        let wide = SwiftFunction.all(in: file).filter { $0.parameterCount > Self.parameters }
        #expect(wide.isEmpty, "\(wide.map(\.name))")
    }
}

/// A function found by its indentation, which swift-format guarantees.
struct SwiftFunction {
    let name: String
    let lineCount: Int
    let parameterCount: Int
    /// Blocks inside each other below the function's own.
    let depth: Int

    static func all(in file: Repository.SourceFile) -> [SwiftFunction] {
        let start = /^(\s*)(?:[a-z@()]+ )*(?:func [^\s(<]+|init[?]?)[(<]/
        return file.lines.indices.compactMap { index in
            guard let match = file.lines[index].firstMatch(of: start) else { return nil }
            let closing = match.1 + "}"
            let end = file.lines[index...].firstIndex { $0 == closing } ?? index
            let signature = file.lines[index...end].prefix { !$0.hasSuffix("{") }
            let head =
                signature + [
                    file.lines[
                        index + signature.count < file.lines.count
                            ? index + signature.count : index]
                ]
            return SwiftFunction(
                name: String(match.0), lineCount: end - index + 1,
                parameterCount: countParameters(head.joined(separator: " ")),
                depth: depth(of: file.lines[index...end]))
        }
    }

    private static func depth(of lines: ArraySlice<String>) -> Int {
        var depth = 0
        var deepest = 0
        for character in lines.map(\.withoutStrings).joined() {
            if character == "{" { depth += 1 }
            if character == "}" { depth -= 1 }
            deepest = max(deepest, depth)
        }
        return deepest - 1
    }

    /// Colons at the first level of the signature's first parentheses.
    private static func countParameters(_ signature: String) -> Int {
        var depth = 0
        var count = 0
        for character in signature.drop(while: { $0 != "(" }) {
            switch character {
            case "(", "[", "<": depth += 1
            case ")", "]", ">": depth -= 1
            case ":" where depth == 1: count += 1
            default: break
            }
            if depth == 0 { break }
        }
        return count
    }
}
