import VMMBase
import VMMMachine

/// The API's description for programs (OpenAPI 3.0.3), made from the tables that serve it. It is
/// made anew each time it is asked for, and nothing of it is kept.
package enum OpenAPI {
    /// The whole document; `version` is the program's.
    package static func document(version: String) -> JSONValue {
        [
            "openapi": "3.0.3",
            "info": [
                "title": "Swiftlet", "version": .string(version),
                "description": .string(introduction),
            ],
            "servers": [["url": "http://localhost/api/v1"]],
            "paths": .object(
                Endpoint.all.map {
                    .init(
                        "/" + $0.name, .object([.init($0.method.lowercased(), operation($0))]))
                }),
            "components": [
                "schemas": .object(MachineConfiguration.schemas + answerSchemas),
                "responses": .object(
                    failures.map { status in
                        .init("\(status.rawValue)", failure(meanings[status] ?? status.phrase))
                    }),
            ],
        ]
    }

    private static let introduction =
        "The API of swiftlet-vmm, on a Unix socket: Cloud Hypervisor's, as far as it goes. "
        + "vm.create checks the shape of a configuration; what its values may be is checked when "
        + "it is booted."

    private static func operation(_ endpoint: Endpoint) -> JSONValue {
        var operation: JSONValue = [
            "summary": .string(endpoint.summary), "operationId": .string(endpoint.operationName),
        ]
        if case .required(let schema) = endpoint.body {
            let body: JSONValue = [
                "required": true, "content": json(MachineConfiguration.reference(schema)),
            ]
            operation.set(body, at: ["requestBody"])
        }
        let failed = endpoint.failures.map { status in
            JSONValue.Member(
                "\(status.rawValue)", ["$ref": "#/components/responses/\(status.rawValue)"])
        }
        operation.set(
            .object([success(endpoint.answer)] + endpoint.alternative + failed),
            at: ["responses"])
        if case .machine(let verb, _) = endpoint.action {
            for (status, links) in links(verb) {
                operation.set(links, at: ["responses", status, "links"])
            }
        }
        return operation
    }

    private static func success(_ answer: Endpoint.Answer) -> JSONValue.Member {
        switch answer {
        case .nothing: .init("204", ["description": "Done"])
        case .empty: .init("200", ["description": "Done"])
        case .json(let schema):
            .init(
                "200",
                ["description": "Done", "content": json(MachineConfiguration.reference(schema))])
        case .lines(let schema):
            .init(
                "200",
                [
                    "description": "Lines, until one of both closes the connection",
                    "content": [
                        "application/x-ndjson": ["schema": MachineConfiguration.reference(schema)]
                    ],
                ])
        }
    }

    /// What can be asked next, by the status before it: who explores the API goes along these.
    private static func links(_ verb: MachineVerb) -> [(status: String, links: JSONValue)] {
        func removal(_ id: String) -> JSONValue {
            [
                "remove": [
                    "operationId": "vmRemoveDevice", "requestBody": ["id": .string(id)],
                ]
            ]
        }
        return switch verb {
        case .create:
            [
                (
                    "204",
                    .object(
                        ["vmInfo", "vmBoot", "vmAddDisk", "vmDelete"].map {
                            .init($0, ["operationId": .string($0)])
                        })
                )
            ]
        case .addDisk, .addNet, .addVsock:
            [("200", removal("$response.body#/id")), ("204", removal("$request.body#/id"))]
        default: []
        }
    }

    private static func json(_ schema: JSONValue) -> JSONValue {
        ["application/json": ["schema": schema]]
    }

    // MARK: failures

    /// What can be told of a request that is understood as HTTP.
    private static let failures: [HTTPStatus] = [
        .badRequest, .notFound, .conflict, .contentTooLarge, .internalServerError,
        .serviceUnavailable,
    ]

    private static let meanings: [HTTPStatus: String] = [
        .badRequest: "The wrong method, body or JSON, or a configuration that cannot be",
        .notFound: "There is no VM, or no such device",
        .conflict: "Two devices have one name",
        .internalServerError: "The wrong state, or a failure",
        .serviceUnavailable: "Others take all the room",
    ]

    private static func failure(_ meaning: String) -> JSONValue {
        [
            "description": .string(meaning),
            "content": json(MachineConfiguration.reference("Failure")),
        ]
    }

    // MARK: answers

    private static var answerSchemas: [JSONValue.Member] {
        let count = JSONValue.wholeNumber(0...UInt64.max)
        return [
            .init(
                "Failure",
                [
                    "description": "Sentences, from what was wanted to the reason for its failure",
                    "type": "array", "minItems": 1, "items": ["type": "string"],
                ]),
            .init(
                "Event",
                object([
                    ("timestamp", object([("secs", count), ("nanos", count)])),
                    ("source", ["type": "string"]), ("event", ["type": "string"]),
                    (
                        "properties",
                        [
                            "type": "object", "nullable": true,
                            "additionalProperties": ["type": "string"],
                        ]
                    ),
                ])),
            .init("OpenAPI", ["type": "object", "required": ["openapi", "paths"]]),
            .init(
                "VmmPingResponse",
                object([
                    ("build_version", ["type": "string"]), ("version", ["type": "string"]),
                    ("pid", count),
                    ("features", ["type": "array", "items": ["type": "string"]]),
                ])),
            .init(
                "VmInfo",
                object(
                    [
                        ("config", MachineConfiguration.reference("VmConfig")),
                        ("state", ["type": "string", "enum": .array(states)]),
                        ("memory_actual_size", count),
                    ],
                    optional: [
                        (
                            "device_tree",
                            [
                                "description": "Devices by their names; of a booted machine",
                                "type": "object",
                                "additionalProperties":
                                    MachineConfiguration.reference("DeviceNode"),
                            ]
                        )
                    ])),
            .init("DeviceNode", deviceNode),
            .init(
                "VmCounters",
                [
                    "description": "Counters by their names, by the names of devices",
                    "type": "object",
                    "additionalProperties": ["type": "object", "additionalProperties": count],
                ]),
            .init(
                "PciDeviceInfo", object([("id", ["type": "string"]), ("bdf", ["type": "string"])])),
            .init("VmRemoveDevice", object([("id", ["type": "string"])])),
            .init(
                "VmCoredumpData",
                object([("destination_url", ["type": "string", "pattern": "^file://."])])),
            .init(
                "VmResizeDisk", object([("id", ["type": "string"]), ("desired_size", count)])),
        ]
    }

    /// What a device occupies is one member of each resource, whose name says the kind.
    private static var deviceNode: JSONValue {
        object([
            ("id", ["type": "string"]),
            (
                "resources",
                ["type": "array", "items": ["type": "object", "minProperties": 1]]
            ),
            ("parent", ["type": "string", "nullable": true]),
            ("children", ["type": "array", "items": ["type": "string"]]),
            ("pci_bdf", ["type": "string", "nullable": true]),
        ])
    }

    private static var states: [JSONValue] {
        MachineState.allCases.filter { $0 != .absent }.map { .string($0.name) }
    }

    private typealias Members = [(name: String, schema: JSONValue)]

    /// An object that has all of these members, and may have the optional ones.
    private static func object(_ members: Members, optional: Members = []) -> JSONValue {
        [
            "type": "object", "required": .array(members.map { .string($0.name) }),
            "properties": .object((members + optional).map { .init($0.name, $0.schema) }),
        ]
    }
}

extension Endpoint {
    /// `vm.power-button` is `vmPowerButton`, a function's name in most languages.
    fileprivate var operationName: String {
        let words = name.split { ".-".contains($0) }.map(String.init)
        return words.prefix(1).joined()
            + words.dropFirst().map { $0.prefix(1).uppercased() + $0.dropFirst() }.joined()
    }

    /// A device that the configuration takes, because there is no machine yet to plug it into.
    fileprivate var alternative: [JSONValue.Member] {
        guard case .json("PciDeviceInfo") = answer else { return [] }
        return [.init("204", ["description": "The configuration has it"])]
    }

    /// The statuses of its failures, in their order.
    fileprivate var failures: [HTTPStatus] {
        var statuses: Set<HTTPStatus> = [.badRequest]
        if case .required = body {
            statuses.formUnion([.contentTooLarge, .serviceUnavailable])
        }
        switch action {
        case .ping, .description: break
        case .events: statuses.insert(.serviceUnavailable)
        case .info: statuses.insert(.notFound)
        case .missing: statuses.insert(.internalServerError)
        case .machine(let verb, _):
            statuses.formUnion(verb.failures.map { HTTPStatus($0) })
            statuses.insert(.internalServerError)
        }
        return statuses.sorted { $0.rawValue < $1.rawValue }
    }
}
