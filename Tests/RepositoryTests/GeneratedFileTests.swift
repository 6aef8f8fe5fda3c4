import Testing
import VMMMachine

/// Files that are made from the code are as the code makes them.
@Suite("Generated files")
struct GeneratedFileTests {
    @Test("docs/command-line.txt is what --help prints")
    func commandLine() throws {
        let committed = try Repository.text("docs/command-line.txt")
        #expect(
            committed == HelpText.render(program: "swiftlet-vmm"),
            "make it anew: .build/debug/swiftlet-vmm --help >docs/command-line.txt")
    }
}
