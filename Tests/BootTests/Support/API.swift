import Foundation

/// The API of a monitor, asked by curl.
struct API {
    let socket: String

    /// The status and the body of the answer.
    func ask(
        _ method: String, _ name: String, _ body: String? = nil
    ) throws -> (status: Int, body: String) {
        var words = [
            "curl", "-s", "--unix-socket", socket, "-X", method, "-w", "\n%{http_code}",
            "http://localhost/api/v1/\(name)",
        ]
        if let body { words += ["-H", "Content-Type: application/json", "-d", body] }
        let result = try HostCommand(words)
        let lines = result.output.split(separator: "\n", omittingEmptySubsequences: false)
        return (
            lines.last.flatMap { Int($0) } ?? 0, lines.dropLast().joined(separator: "\n")
        )
    }

    func put(_ name: String, _ body: String? = nil) throws -> Int {
        try ask("PUT", name, body).status
    }

    func object(_ name: String) throws -> [String: Any] {
        let text = try ask("GET", name).body
        return try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any] ?? [:]
    }

    func state() throws -> String { try object("vm.info")["state"] as? String ?? "none" }

    /// What its answer says, as an object.
    func put(_ name: String, _ body: [String: Any]) throws -> (status: Int, answer: [String: Any]) {
        let data = try JSONSerialization.data(withJSONObject: body)
        let (status, text) = try ask("PUT", name, String(decoding: data, as: UTF8.self))
        let answer = try? JSONSerialization.jsonObject(with: Data(text.utf8))
        return (status, answer as? [String: Any] ?? [:])
    }

    /// Returns when the socket is there: the first sign of a monitor that waits for requests.
    static func wait(for guest: Guest, _ socket: String) throws -> API {
        let deadline = Date(timeIntervalSinceNow: Guest.patience)
        while !FileManager.default.fileExists(atPath: socket), Date() < deadline {
            Thread.sleep(forTimeInterval: 0.05)
        }
        return API(socket: socket)
    }
}
