import ArgumentParser
import VMMBase
import VMMHost

/// `swiftlet remote`, and `ch-remote`: asks a running monitor for something.
struct RemoteCommand: ParsableCommand {
    /// The program's own name when it stands for this command alone.
    static let otherName = "ch-remote"

    static let configuration = CommandConfiguration(
        commandName: Swiftlet.program == otherName ? otherName : "remote",
        abstract: "Asks a running monitor for something, by its API.",
        discussion: RemoteVerb.help)

    @Option(help: "The path of the monitor's API socket.", completion: .file())
    var apiSocket: String

    @Flag(help: "Print the answer as it comes, on a terminal too.")
    var json = false

    @Argument(help: "What to ask for, of the list above.")
    var verb: RemoteVerb

    @Argument(help: "What the verb needs: a file, a name, or key=value,...", completion: .file())
    var word: String?

    @Option(help: "resize: the number of vCPUs.")
    var cpus: String?

    @Option(help: "resize: the guest's memory, with K, M or G behind it if you like.")
    var memory: String?

    @Option(help: "resize: the balloon's size.")
    var balloon: String?

    @Option(help: "resize-disk: the disk's name, such as _disk0.")
    var disk: String?

    @Option(help: "resize-disk, resize-zone: the new size.")
    var size: String?

    @Option(help: "resize-zone: the zone's name.")
    var id: String?

    func run() throws {
        let body = try body
        let path = apiSocket.hasPrefix("path=") ? String(apiSocket.dropFirst(5)) : apiSocket
        let client = APIClient(socket: path)
        let report = RemoteReport(
            isForPeople: !json && FileDescriptor.standardOutput.isTerminal, verb: verb.name)
        guard verb.name != "watch" else {
            return try client.follow(verb.endpoint) { report.print(event: $0) }
        }
        report.print(answer: try client.ask(verb.method, verb.endpoint, body))
    }

    /// The options of some verbs that were given.
    private var given: [String: String] {
        [
            "cpus": cpus, "memory": memory, "balloon": balloon, "disk": disk, "size": size,
            "id": id,
        ].compactMapValues { $0 }
    }

    private var body: RemoteBody {
        get throws {
            var known: [RemoteVerb.Option] = []
            if case .options(let options) = verb.input { known = options }
            if let name = given.keys.sorted().first(where: { name in
                !known.contains { $0.name == name }
            }) {
                throw ValidationError("--\(name) is no option of \(verb.name)")
            }
            switch verb.input {
            case .nothing: return try requireNoWord(.nothing)
            case .options(let options):
                return try requireNoWord(RemoteBody(options: options, given: given))
            case .file: return try RemoteBody(file: word ?? "-")
            case .text(let device?, _):
                return try RemoteBody(device: device, requireWord())
            case .text(nil, let bare):
                return try RemoteBody(text: requireWord(), bare: bare, what: verb.name)
            }
        }
    }

    private func requireNoWord(_ body: RemoteBody) throws -> RemoteBody {
        if let word { throw ValidationError("\(verb.name) takes no '\(word)'") }
        return body
    }

    private func requireWord() throws -> String {
        guard let word else { throw ValidationError("\(verb.name) needs more: \(verb.summary)") }
        return word
    }
}
