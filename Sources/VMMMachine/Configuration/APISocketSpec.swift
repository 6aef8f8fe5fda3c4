import VMMBase
import VMMHost

/// `--api-socket`: where the API is served.
package struct APISocketSpec: Equatable, Sendable {
    package static let option = "--api-socket"
    /// Clients that may wait to be accepted.
    private static let backlog: Int32 = 128

    package enum Place: Equatable, Sendable {
        case path(String)
        /// A socket that listens already.
        case descriptor(Int32)
    }

    package let place: Place

    /// A listening socket, and the lock that keeps its path ours while it is held.
    package struct Opened {
        package let listener: UnixListener
        package let lock: FileDescriptor?

        fileprivate init(_ listener: UnixListener, lock: FileDescriptor?) {
            self.listener = listener
            self.lock = lock
        }
    }

    /// `path=<file>`, `fd=<n>`, or a path alone.
    init(_ text: String) throws(ConfigurationProblem) {
        if text.hasPrefix("fd=") {
            guard let number = Int32(text.dropFirst(3)), number >= 0 else {
                throw ConfigurationProblem(
                    option: "\(Self.option) fd", value: String(text.dropFirst(3)),
                    reason: "expected the number of an open descriptor")
            }
            place = .descriptor(number)
            return
        }
        let path = text.hasPrefix("path=") ? String(text.dropFirst(5)) : text
        if let problem = UnixSocket.problem(path: path) {
            throw ConfigurationProblem(option: Self.option, value: "", reason: problem)
        }
        place = .path(path)
    }

    /// Listens. The file is the owner's alone; one that was left behind is replaced.
    package func open() throws(ConfigurationProblem) -> Opened {
        do {
            switch place {
            case .descriptor(let number):
                return Opened(try UnixListener(inherited: number), lock: nil)
            case .path(let path):
                // Two that start at once would both find a socket that nobody listens on.
                let lock = try FileDescriptor.open(path + ".lock", [.readWrite, .create])
                guard try lock.lock(exclusive: true) else {
                    throw UnixListener.Failure(description: "the socket '\(path)' is in use")
                }
                let listener = try UnixListener(
                    path: path, backlog: Self.backlog, isPrivate: true)
                return Opened(listener, lock: lock)
            }
        } catch {
            throw ConfigurationProblem(option: Self.option, value: "", reason: "\(error)")
        }
    }
}
