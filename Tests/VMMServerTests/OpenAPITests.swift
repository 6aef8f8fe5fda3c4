import Testing
import VMMBase
import VMMMachine

@testable import VMMServer

/// The description of the API says what the API does. What it says of configurations is tested
/// where those are.
@Suite("OpenAPI")
struct OpenAPITests {
    private static let document = OpenAPI.document(version: "1.2.3")

    private static func operation(_ endpoint: Endpoint) -> JSONValue? {
        document["paths"]?["/\(endpoint.name)"]?[endpoint.method.lowercased()]
    }

    @Test("all that can be asked is there, with what it answers")
    func endpoints() throws {
        for endpoint in Endpoint.all {
            let responses = try #require(Self.operation(endpoint)?["responses"])
            let isTold = responses["200"] != nil
            let isSilent = responses["204"] != nil
            // What is added to a machine that is not there yet has no place to tell of.
            let isAddition = endpoint.name.hasPrefix("vm.add-") && isTold
            #expect(isTold != isSilent || isAddition, "\(endpoint.name)")
            #expect(responses["400"] != nil)
        }
        #expect(Self.document["info"]?["version"] == "1.2.3")
    }

    @Test("what a state refuses has its status there", arguments: MachineVerb.allCases)
    func states(verb: MachineVerb) throws {
        let endpoint = try #require(Endpoint.all.first { $0.name == verb.rawValue })
        let responses = try #require(Self.operation(endpoint)?["responses"])
        for state in MachineState.allCases {
            guard case .refused(let kind, _) = verb.admission(in: state) else { continue }
            #expect(responses["\(HTTPStatus(kind).rawValue)"] != nil, "\(state)")
        }
    }

    @Test("each reference leads somewhere, and each schema is referred to")
    func references() throws {
        var found: Set<String> = []
        Self.collect(Self.document, &found)
        for reference in found {
            let names = reference.split(separator: "/").dropFirst().map(String.init)
            #expect(names.reduce(Self.document) { $0?[$1] } != nil, "\(reference)")
        }
        guard case .object(let schemas)? = Self.document["components"]?["schemas"] else {
            return #expect(Bool(false), "there are no schemas")
        }
        for schema in schemas { #expect(found.contains("#/components/schemas/\(schema.name)")) }
    }

    private static func collect(_ json: JSONValue, _ found: inout Set<String>) {
        switch json {
        case .object(let members):
            for member in members {
                if member.name == "$ref", case .string(let text) = member.value {
                    found.insert(text)
                }
                collect(member.value, &found)
            }
        case .array(let values): for value in values { collect(value, &found) }
        default: break
        }
    }

    @Test("no two operations have one name")
    func operationNames() {
        let names = Endpoint.all.compactMap { Self.operation($0)?["operationId"] }
        #expect(Set(names.map { "\($0)" }).count == Endpoint.all.count)
    }
}
