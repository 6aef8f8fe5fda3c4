import VMMBase
import VMMHost
import VMMSandbox

/// `--landlock-rules`: a file or folder that the confined monitor may still reach.
package struct LandlockRule: Decodable, Sendable {
    package static let option = "--landlock-rules"
    package static var fields: [OptionField] {
        [
            OptionField("path", "<file>", "a file, or a folder with all that is below it").required,
            OptionField("access", "r|w|rw", "what may be done there").required,
        ]
    }

    private enum Access: String, OptionChoice, Decodable {
        case r, w, rw, wr
    }

    private let path: String
    private let access: Access

    /// What it allows: to write is also to make files and to remove them.
    var file: SandboxFile {
        var allowed: LandlockRules.Access = [.control]
        if access != .w { allowed.formUnion([.read, .list]) }
        if access != .r {
            allowed.formUnion([.write, .makeFile, .makeSocket, .removeFile])
        }
        return SandboxFile(path, allowed)
    }
}
