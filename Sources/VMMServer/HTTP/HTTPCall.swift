import Synchronization
import VMMHost

/// A request that waits for its answer. Any thread may answer, once; what nobody answers is
/// answered with a failure when the last holder lets go of it.
package final class HTTPCall: Sendable {
    package let request: HTTPRequest
    /// What came with the request by SCM_RIGHTS, in its order.
    package let descriptors: [FileDescriptor]
    private let deliver: @Sendable (HTTPAnswer) -> Void
    private let isAnswered = Atomic<Bool>(false)

    /// `deliver` is called once, by whoever answers.
    package init(
        _ request: HTTPRequest, descriptors: [FileDescriptor],
        deliver: @escaping @Sendable (HTTPAnswer) -> Void
    ) {
        self.request = request
        self.descriptors = descriptors
        self.deliver = deliver
    }

    deinit {
        answer(HTTPResponse(.internalServerError, chain: ["the request was given up"]))
    }

    /// Sends the response; later ones are lost.
    package func answer(_ response: HTTPResponse) { give(.whole(response)) }

    /// Answers with lines that may come at any time later.
    package func answer(_ lines: HTTPLines) { give(.lines(lines)) }

    private func give(_ answer: HTTPAnswer) {
        guard !isAnswered.exchange(true, ordering: .acquiringAndReleasing) else { return }
        deliver(answer)
    }
}

/// What a client gets for a request.
package enum HTTPAnswer: Sendable {
    case whole(HTTPResponse)
    /// With the connection's end it is over.
    case lines(HTTPLines)
}
