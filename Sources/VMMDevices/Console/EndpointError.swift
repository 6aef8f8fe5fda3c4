/// A console's endpoint that could not be made: one sentence for the user, which names the path.
package struct EndpointError: Error, Equatable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) {
        self.description = description
    }

    /// Adds what the endpoint is for to an error of the host.
    init(_ endpoint: String, _ cause: any Error) {
        description = "\(endpoint): \(cause)"
    }
}
