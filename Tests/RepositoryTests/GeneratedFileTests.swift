import Testing
import VMMMachine
import VMMServer

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

    @Test("docs/openapi.json is what --api-description prints")
    func description() throws {
        let committed = try Repository.text("docs/openapi.json")
        let version = try #require(committed.firstMatch(of: /"version": "([^"]+)"/)?.1)
        let text = OpenAPI.document(version: String(version)).text(isIndented: true)
        let isSame = committed == String(decoding: text, as: UTF8.self) + "\n"
        #expect(
            isSame, "make it anew: .build/debug/swiftlet-vmm --api-description >docs/openapi.json")
    }
}
