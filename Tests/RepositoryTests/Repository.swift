import Foundation
import Testing

/// The source tree that these tests were built from.
enum Repository {
    static let root = URL(filePath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    /// A Swift file with its text split into lines.
    struct SourceFile: CustomTestStringConvertible {
        /// Below the repository's root.
        let path: String
        let lines: [String]

        var module: String { String(path.split(separator: "/")[1]) }
        var testDescription: String { path }

        /// Lines that hold code: no blank lines, no lines that are only a comment.
        var codeLines: [(number: Int, text: String)] {
            lines.enumerated().compactMap { index, line in
                let text = line.trimmingCharacters(in: .whitespaces)
                return text.isEmpty || text.hasPrefix("//") ? nil : (index + 1, line)
            }
        }
    }

    static func text(_ path: String) throws -> String {
        try String(contentsOf: root.appending(path: path), encoding: .utf8)
    }

    /// All Swift files below a folder of the repository.
    static func swiftFiles(_ folder: String) -> [SourceFile] {
        let base = root.appending(path: folder)
        let walk = FileManager.default.enumerator(at: base, includingPropertiesForKeys: nil)
        let files = (walk?.allObjects as? [URL] ?? []).filter { $0.pathExtension == "swift" }
        return files.sorted { $0.path < $1.path }.compactMap { file in
            guard let text = try? String(contentsOf: file, encoding: .utf8) else { return nil }
            let path = file.path.dropFirst(root.path.count).drop { $0 == "/" }
            return SourceFile(
                path: String(path),
                lines: text.split(separator: "\n", omittingEmptySubsequences: false).map(
                    String.init))
        }
    }

    static let sources = swiftFiles("Sources")
    static let tests = swiftFiles("Tests")
}
