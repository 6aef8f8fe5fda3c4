import VMMBase
import VMMHost

/// `--event-monitor`: where events are written.
package struct EventMonitorSpec: Decodable, Sendable {
    package static let option = "--event-monitor"
    package static let summary = "Where events are written, as JSON"
    package static var fields: [OptionField] {
        [
            OptionField(
                "path", "<file>", "a file, which is made or emptied, or a FIFO with a reader"),
            OptionField("fd", "<fd>", "an open descriptor"),
        ]
    }

    let path: String?
    let fd: Int32?

    /// Opens it. A file that is given is emptied.
    package func open(_ clock: any HostClock) throws(ConfigurationProblem) -> EventMonitor {
        guard (path == nil) != (fd == nil) else {
            throw ConfigurationProblem(
                option: Self.option, value: "", reason: "needs either path=<file> or fd=<fd>")
        }
        do throws(HostError) {
            return EventMonitor(try openStream(), clock: clock)
        } catch {
            throw ConfigurationProblem(
                option: "\(Self.option) \(path == nil ? "fd" : "path")",
                value: path ?? "\(fd ?? -1)", reason: "cannot be written: \(error.reason)")
        }
    }

    private func openStream() throws(HostError) -> ByteStream {
        guard let path else { return try .shared(.inherited(fd ?? -1), .writeOnly) }
        return try ByteStream(
            nonBlocking: .open(
                path, [.writeOnly, .create, .truncate, .nonBlocking, .noControllingTerminal]))
    }
}
