import ArgumentParser
import VMMHost

/// The tool people use; one file per subcommand.
@main
struct Swiftlet: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "swiftlet",
        abstract: "Works on virtual machines, their disk images and their networks.",
        subcommands: [
            RunCommand.self, JailCommand.self, ImageCommand.self, SwitchCommand.self,
            RemoteCommand.self, DoctorCommand.self,
        ])

    /// As the parser's own, but that a mistake on the command line is one sentence and status 1 as
    /// any other failure: scripts tell the statuses of `image check` apart.
    static func main() {
        StandardStreams.fill()
        let root: any ParsableCommand.Type =
            switch program {
            case RemoteCommand.otherName: RemoteCommand.self
            case JailCommand.otherName: JailCommand.self
            default: Swiftlet.self
            }
        do {
            var command = try root.parseAsRoot(Array(CommandLine.arguments.dropFirst()))
            try command.run()
        } catch {
            guard root.exitCode(for: error) == .validationFailure else {
                root.exit(withError: error)
            }
            FileDescriptor.standardError.writeAll("Error: \(root.message(for: error))\n")
            root.exit(withError: ExitCode.failure)
        }
    }

    /// The name that the program was started under.
    static var program: String {
        CommandLine.arguments.first?.split(separator: "/").last.map(String.init) ?? "swiftlet"
    }
}
