import ArgumentParser

/// The tool people use; one file per subcommand.
@main
struct Swiftlet: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "swiftlet", abstract: "Works on virtual machines and their disk images.",
        subcommands: [ImageCommand.self])
}
