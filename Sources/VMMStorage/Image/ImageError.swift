import VMMHost

/// Why an image cannot be used, or a request to it failed; a sentence without the path, which the
/// caller knows.
package enum ImageError: Error, CustomStringConvertible {
    case host(HostError)
    /// The image contradicts its format or itself: what and where.
    case corrupt(String)
    /// The image is sound but uses something that Swiftlet does not do: its name.
    case unsupported(String)
    /// What is asked of the image cannot be done with it.
    case invalid(String)
    /// Somebody else has the file locked.
    case inUse
    case outOfRange

    package var description: String {
        switch self {
        case .host(let error): error.reason
        case .corrupt(let what): "is damaged: \(what)"
        case .unsupported(let what): "uses \(what), which Swiftlet does not support"
        case .invalid(let what): what
        case .inUse: "is used by somebody else, who writes it or would be disturbed by writes"
        case .outOfRange: "the range lies outside the disk"
        }
    }

    /// The `errno` that fits, for a tool's or engine's result.
    package var code: Int32 {
        switch self {
        case .host(let error): error.code
        case .corrupt, .unsupported, .invalid, .inUse, .outOfRange: HostError.ioCode
        }
    }
}
