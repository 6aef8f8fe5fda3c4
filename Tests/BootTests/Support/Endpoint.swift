import Foundation

/// The user's end of a guest's console: a terminal or a socket.
final class Endpoint {
    let capture: Capture
    private let output: Int32

    private init(_ descriptor: Int32) {
        output = dup(descriptor)
        capture = Capture(descriptor, changed: NSCondition())
    }

    deinit {
        // Ends the capture's read too, which a close alone would not.
        shutdown(output, Int32(SHUT_RDWR))
        close(output)
    }

    static func terminal(_ path: String) throws -> Endpoint {
        let descriptor = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw HostCommand.Failure(description: "\(path) cannot be opened")
        }
        return Endpoint(descriptor)
    }

    static func socket(_ path: String) throws -> Endpoint {
        let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        let descriptor = Glibc.socket(AF_UNIX, type, 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard result == 0 else {
            throw HostCommand.Failure(description: "nobody answers at \(path)")
        }
        return Endpoint(descriptor)
    }

    /// Sends keystrokes.
    func type(_ text: String) {
        let bytes = Array(text.utf8)
        _ = write(output, bytes, bytes.count)
    }
}

/// For what no event tells of; looks fifty times a second.
func waitUntil(
    _ event: String, within seconds: Double = Guest.patience, _ condition: () throws -> Bool
) throws {
    let deadline = Date(timeIntervalSinceNow: seconds)
    while try !condition() {
        guard Date() < deadline else {
            throw HostCommand.Failure(description: "\(Int(seconds)) s passed without: \(event)")
        }
        usleep(20_000)
    }
}
