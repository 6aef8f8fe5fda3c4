import VMMBase

/// Why a request was not carried out: a kind for programs, and sentences for people.
package struct RequestFailure: Error, Equatable, Sendable {
    package enum Kind: Sendable {
        case notCreated, wrongState, unknownDevice, invalid, conflict, failed, unsupported
    }

    package let kind: Kind
    /// From what was wanted to the reason for its failure.
    package let chain: [String]

    package init(_ kind: Kind, _ chain: [String]) {
        self.kind = kind
        self.chain = chain
    }

    /// A request that failed with an error of ours; `what` is what it was to do.
    package init(_ what: String, _ error: any Error) {
        let outermost = "Cannot \(what)"
        switch error {
        case let failure as RequestFailure:
            self.init(failure.kind, [outermost] + failure.chain)
        case let error as ConfigurationError:
            let isConflict = error.problems.contains(where: \.isConflict)
            self.init(
                isConflict ? .conflict : .invalid,
                [outermost] + error.problems.map(\.jsonDescription))
        case let problem as ConfigurationProblem:
            self.init(
                problem.isConflict ? .conflict : .invalid, [outermost, problem.jsonDescription])
        default: self.init(.failed, [outermost, "\(error)"])
        }
    }
}
