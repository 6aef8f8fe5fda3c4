import Testing

/// What DESIGN sections 6 and 7 forbid and no compiler checks.
@Suite("Forbidden words")
struct ForbiddenWordTests {
    /// A pattern and where it is allowed all the same. The list may only shrink.
    private static var everywhere: [(name: String, pattern: Regex<Substring>)] {
        [
            ("try!", /try!/),
            ("as!", /as!/),
            ("fatalError", /fatalError\(/),
            ("force unwrap", /[A-Za-z0-9_\])]!(?=[.\s)\],;]|$)(?!=)/),
            (
                "unchecked conversion",
                /\b(?:unsafeBitCast|unsafeDowncast|unsafelyUnwrapped|uncheckedBounds|unchecked:)/
            ),
            ("unfinished work", /TODO|FIXME|XXX/),
            ("sleep", /\b(?:u|nano)?sleep\(/),
            ("unowned(unsafe)", /unowned\(unsafe\)/),
        ]
    }

    private static var onlyInHost: [(name: String, pattern: Regex<Substring>)] {
        [
            ("unsafe", /\bunsafe\b/),
            ("raw pointers", /Unsafe\w*Pointer/),
            ("@unchecked Sendable", /@unchecked Sendable/),
        ]
    }

    @Test("no source has a forbidden word", arguments: Repository.sources)
    func everywhere(file: Repository.SourceFile) {
        let found = Self.everywhere.flatMap { word in
            file.codeLines.filter { $0.text.withoutStrings.contains(word.pattern) }
                .map { "\(word.name) in line \($0.number)" }
        }
        #expect(found.isEmpty)
    }

    @Test("unsafe code is in VMMHost alone", arguments: Repository.sources)
    func unsafeCode(file: Repository.SourceFile) {
        let found = Self.onlyInHost.flatMap { word in
            file.codeLines.filter { $0.text.withoutStrings.contains(word.pattern) }
                .map { "\(word.name) in line \($0.number)" }
        }
        #expect(found.isEmpty || file.module == "VMMHost")
    }

    @Test(
        "each @unchecked Sendable says why it is sound",
        arguments: Repository.sources.filter { $0.module == "VMMHost" })
    func uncheckedSendable(file: Repository.SourceFile) {
        for (index, line) in file.lines.enumerated() where line.contains("@unchecked Sendable {") {
            let next = file.lines.dropFirst(index + 1).first ?? ""
            #expect(next.contains("SAFETY"), "line \(index + 1)")
        }
    }
}

extension String {
    /// The line with the contents of its string literals and its trailing comment taken out.
    var withoutStrings: String {
        replacing(/"(?:[^"\\]|\\.)*"/, with: "\"\"").replacing(/\/\/.*$/, with: "")
    }
}
