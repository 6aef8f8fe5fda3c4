import FoundationEssentials

/// A directory of its own for a test, removed with the object.
package final class TemporaryDirectory {
    package let path: String

    package init() throws {
        path =
            FileManager.default.temporaryDirectory.path
            + "/swiftlet-\(UUID().uuidString.prefix(8))"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
    }

    package func file(_ name: String) -> String { path + "/" + name }
}
