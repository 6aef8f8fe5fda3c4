import Foundation
import Testing

@Suite("swiftlet remote")
struct RemoteCommandTests: ToolSuite {
    let directory: ToolDirectory

    init() throws {
        directory = try ToolDirectory()
    }

    private func remote(_ words: String...) throws -> ToolOutcome {
        try run(Self.tool, ["remote", "--api-socket", file("api")] + words)
    }

    @Test("a monitor that is not there is one sentence, and status 1")
    func nobody() throws {
        let outcome = try remote("ping")
        #expect(outcome.status == 1)
        #expect(outcome.error.contains("cannot connect to the socket"))
    }

    @Test("a verb that nobody knows, and one without its options, are refused")
    func words() throws {
        #expect(try remote("dance").status == 1)
        #expect(try remote("resize-disk", "--disk", "_disk0").status == 1)
        #expect(try remote("create", file("none")).error.contains("cannot open"))
        #expect(try remote("boot", "now").error.contains("boot takes no 'now'"))
        #expect(try remote("boot", "--size", "1").error.contains("--size is no option of boot"))
        #expect(try remote("resize-disk", "--disk", "d", "--size", "x").error.contains("--size"))
        #expect(try remote("add-disk").error.contains("add-disk needs more"))
        #expect(try remote("add-disk", "path=/a,queue_size=x").error.contains("queue_size 'x'"))
        #expect(try remote("add-net", "fd=[999]").error.contains("descriptor"))
    }

    @Test("under its other name it is the command, with completions for that name")
    func otherName() throws {
        let link = file("ch-remote")
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: Self.tool)
        let script = try run(link, ["--generate-completion-script", "bash"])
        #expect(script.status == 0)
        #expect(script.output.contains("complete -o filenames -F _ch-remote ch-remote"))
        #expect(script.output.contains("resize-disk"))
        let outcome = try run(link, ["--api-socket", file("api"), "ping"])
        #expect(outcome.status == 1 && outcome.error.contains("cannot connect to the socket"))
        let own = try run(Self.tool, ["--generate-completion-script", "bash"])
        #expect(own.output.contains("_swiftlet_remote"))
    }
}
