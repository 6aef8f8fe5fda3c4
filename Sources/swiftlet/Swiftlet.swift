import ArgumentParser
import VMMHost

/// The tool people use; one file per subcommand.
@main
struct Swiftlet: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "swiftlet", abstract: "Works on virtual machines and their disk images.",
        subcommands: [ImageCommand.self])

    /// As the parser's own, but that a mistake on the command line is one sentence and status 1 as
    /// any other failure: scripts tell the statuses of `image check` apart.
    static func main() {
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch {
            guard exitCode(for: error) == .validationFailure else { exit(withError: error) }
            FileDescriptor.standardError.writeAll("Error: \(message(for: error))\n")
            exit(withError: ExitCode.failure)
        }
    }
}
