import Foundation

/// A folder for the files of one test, gone with it.
final class Scratch: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/swiftlet-boot.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else {
            throw CocoaError(.fileWriteUnknown, userInfo: ["errno": errno])
        }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        // Tests run the monitor as other users too.
        chmod(path, 0o755)
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
    }

    func callAsFunction(_ name: String) -> String { path + "/" + name }

    /// Makes a file and returns its path.
    func file(_ name: String, _ content: Data = Data()) throws -> String {
        try content.write(to: URL(filePath: self(name)))
        return self(name)
    }

    func file(_ name: String, _ content: String) throws -> String {
        try file(name, Data(content.utf8))
    }

    /// Copies a file, so that every user can read and run it.
    ///
    /// Another process writes it: a child that a parallel test forks would hold our descriptor of
    /// the copy until it executes its own program, and nobody may execute the copy till then.
    func copy(_ path: String) throws -> String {
        let copy = self(URL(filePath: path).lastPathComponent)
        try HostCommand.run("cp", path, copy)
        chmod(copy, 0o755)
        return copy
    }

    /// Makes a file that is all holes.
    func sparseFile(_ name: String, bytes: Int) throws -> String {
        _ = try file(name)
        guard truncate(self(name), bytes) == 0 else {
            throw CocoaError(.fileWriteOutOfSpace, userInfo: ["errno": errno])
        }
        return self(name)
    }

    func data(_ name: String) throws -> Data {
        try Data(contentsOf: URL(filePath: self(name)))
    }

    /// Without a terminal's carriage returns.
    func text(_ name: String) throws -> String {
        String(decoding: try data(name), as: UTF8.self).replacing("\r\n", with: "\n")
    }

    /// The records of an event monitor's file: `source event` and, where it has one, the id.
    ///
    /// Only those that are ended by an empty line: of a write that spans two pages of the file, a
    /// reader may see the first alone.
    func events(_ name: String) throws -> [String] {
        let content = try text(name)
        let end = content.ranges(of: "\n\n").last?.upperBound ?? content.startIndex
        return try content[..<end].split(separator: "\n\n").map { record in
            let object = try JSONSerialization.jsonObject(with: Data(record.utf8))
            let fields = object as? [String: Any] ?? [:]
            let id = (fields["properties"] as? [String: String])?["id"]
            return [fields["source"] as? String, fields["event"] as? String, id]
                .compactMap(\.self).joined(separator: " ")
        }
    }

    func exists(_ name: String) -> Bool {
        FileManager.default.fileExists(atPath: self(name))
    }
}
