import VMMBase
import VMMHost
import VMMMachine

/// Cloud Hypervisor's REST API in front of the machine. What needs no machine is answered at once,
/// on the server's thread; the rest goes to the control loop. Any thread.
package final class CloudHypervisorAPI: Sendable {
    private static let prefix = "/api/v1/"

    private let control: MachineControl
    private let events: EventMonitor?
    private let version: String

    /// `events` is what clients can follow.
    package init(_ control: MachineControl, _ events: EventMonitor?, version: String) {
        self.control = control
        self.events = events
        self.version = version
    }

    /// Answers a call, now or later.
    package func handle(_ call: HTTPCall) {
        let request = call.request
        guard request.path.hasPrefix(Self.prefix),
            let endpoint = Endpoint.all.first(where: {
                $0.name == request.path.dropFirst(Self.prefix.count)
            })
        else { return call.answer(HTTPResponse(.notFound, chain: ["Not Found"])) }
        guard request.method == endpoint.method, Self.isRight(request.body, endpoint.body) else {
            return call.answer(HTTPResponse(.badRequest, chain: ["Bad Request"]))
        }
        switch endpoint.action {
        case .ping: call.answer(HTTPResponse(.ok, body: ping.text()))
        case .info: call.answer(info)
        case .events: follow(call)
        case .description:
            call.answer(HTTPResponse(.ok, body: OpenAPI.document(version: version).text()))
        case .missing:
            let failure = RequestFailure(
                .unsupported, ["Cannot do \(endpoint.name)", "it is not supported yet"])
            call.answer(HTTPResponse(failure))
        case .machine(let verb, let make): send(call, verb, make)
        }
    }

    private static func isRight(_ body: [UInt8], _ rule: Endpoint.Body) -> Bool {
        switch rule {
        case .none: body.isEmpty
        case .ignored: true
        case .required: !body.isEmpty
        }
    }

    private func send(
        _ call: HTTPCall, _ verb: MachineVerb, _ make: Endpoint.Maker
    ) {
        let request: MachineRequest
        do {
            let body = call.request.body
            request = try make(body.isEmpty ? .null : JSONParser.parse(body), call.descriptors)
        } catch let error as JSONError {
            let failure = RequestFailure(.invalid, [error.description])
            return call.answer(HTTPResponse(RequestFailure("read the request's body", failure)))
        } catch {
            return call.answer(HTTPResponse(RequestFailure("read the request's body", error)))
        }
        control.send(request) { result in
            switch result {
            case .success(let json?): call.answer(HTTPResponse(.ok, body: json.text()))
            // As Cloud Hypervisor has it: the one request without an answer that is no 204.
            case .success where verb == .endMonitor: call.answer(HTTPResponse(.ok))
            case .success: call.answer(HTTPResponse(.noContent))
            case .failure(let failure): call.answer(HTTPResponse(failure))
            }
        }
    }

    private func follow(_ call: HTTPCall) {
        let lines = HTTPLines(for: call.request) { [events] in
            events?.line(.vmm, .lost, [("reason", "the reader is too slow")]) ?? []
        }
        guard let events, let name = events.subscribe({ lines.add($0) }) else {
            let chain = ["Cannot follow the events", "there are too many who do"]
            return call.answer(HTTPResponse(.serviceUnavailable, chain: chain))
        }
        lines.whenLeft { [weak events] in events?.unsubscribe(name) }
        call.answer(lines)
    }

    private var ping: JSONValue {
        [
            "build_version": "swiftlet v\(version)", "version": "v\(version)",
            "pid": .number("\(ProcessIdentifier.current)"), "features": ["io_uring", "kvm"],
        ]
    }

    private var info: HTTPResponse {
        guard let info = control.info else {
            return HTTPResponse(
                RequestFailure(.notCreated, ["Cannot tell of the VM", "the VM is not created"]))
        }
        return HTTPResponse(.ok, body: info.text())
    }
}

extension HTTPResponse {
    /// A failed request, with the status that Cloud Hypervisor has for its kind.
    init(_ failure: RequestFailure) {
        self.init(HTTPStatus(failure.kind), chain: failure.chain)
    }
}

extension HTTPStatus {
    init(_ kind: RequestFailure.Kind) {
        self =
            switch kind {
            case .notCreated, .unknownDevice: .notFound
            case .invalid: .badRequest
            case .conflict: .conflict
            case .wrongState, .failed, .unsupported: .internalServerError
            }
    }
}
