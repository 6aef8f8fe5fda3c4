import Testing

/// What the threat model says is shown by a test is.
@Suite("Threat model")
struct ThreatModelTests {
    @Test("each test that it names is there")
    func names() throws {
        let model = try Repository.text("docs/THREAT-MODEL.md")
        let named = model.matches(of: /"([^"]+)"/).map { String($0.1) }
        let tests = Repository.tests.flatMap(\.lines).filter { $0.contains("\"") }
        let missing = named.filter { name in !tests.contains { $0.contains("\"\(name)\"") } }
        #expect(missing == [])
        #expect(named.count > 30)
    }
}
