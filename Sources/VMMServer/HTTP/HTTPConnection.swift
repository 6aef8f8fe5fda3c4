import VMMHost

/// One client of the server. Belongs to the server's loop.
final class HTTPConnection {
    /// What the server has to do about a client next.
    enum Need {
        /// Nothing, until the socket or an answer wakes it.
        case nothing
        /// Its turn again: others come first.
        case turn
        case answer(HTTPRequest, [FileDescriptor])
        case end
    }

    /// Bytes a read.
    private static let readByteCount = 16 << 10
    /// Reads a turn: a client that sends without rest must not hold others up.
    private static let readsPerTurn = 16

    let socket: FileDescriptor
    /// What this client makes the process keep, in bytes: a body, or an answer that it does not
    /// take.
    var heldByteCount: Int { bodyByteCount + output.count }
    private var bodyByteCount = 0
    /// Descriptors that came with a request which is not whole yet.
    var heldDescriptorCount: Int { descriptors.count }
    /// It has not taken all of its answer.
    var isSending: Bool { !output.isEmpty }
    /// A request is with whoever answers it.
    private(set) var isAnswering = false
    private var parser = HTTPParser()
    private var input: [UInt8] = []
    private var inputOffset = 0
    private var descriptors: [FileDescriptor] = []
    private var output: [UInt8] = []
    private var outputOffset = 0
    private var keepsAlive = true
    /// An answer that goes on.
    private(set) var lines: HTTPLines?
    /// It sends nothing more.
    private var isAtEnd = false
    /// It takes nothing more.
    private var isGone = false

    init(_ socket: FileDescriptor) { self.socket = socket }

    /// Nobody would miss it: no request is at work or on its way.
    var isIdle: Bool { !isAnswering && parser.isIdle && output.isEmpty }

    /// Does what can be done now: sends, then reads up to the end of a request.
    func proceed() -> Need {
        for _ in 0..<Self.readsPerTurn {
            guard flush() else { return isGone ? .end : .nothing }
            if let lines {
                if let need = proceed(lines) { return need }
                continue
            }
            if isAnswering { return .nothing }
            if !keepsAlive { return .end }
            if let need = parse() { return need }
            // A refusal, or a word to go on, is sent before more is read.
            if !output.isEmpty { continue }
            if isAtEnd { return .end }
            switch receive() {
            case .moved: break
            case .wouldBlock: return .nothing
            case .endOfFile: isAtEnd = true
            case .failed: return .end
            }
        }
        return .turn
    }

    /// Sends more lines, and notices when nobody reads them: a client has nothing more to say.
    private func proceed(_ lines: HTTPLines) -> Need? {
        guard let more = lines.take() else { return .end }
        output = more
        if !more.isEmpty { return nil }
        defer { descriptors = [] }
        switch receive() {
        case .moved: return nil
        case .wouldBlock: return .nothing
        case .endOfFile, .failed: return .end
        }
    }

    private func receive() -> FileDescriptor.Transfer {
        input.removeAll(keepingCapacity: true)
        inputOffset = 0
        return socket.receive(
            into: &input, limit: Self.readByteCount, descriptors: &descriptors)
    }

    /// The next request of what was read.
    private func parse() -> Need? {
        do throws(HTTPError) {
            guard descriptors.count <= FileDescriptor.rightsLimit else {
                throw HTTPError(.badRequest, "there are too many descriptors")
            }
            guard let request = try parser.take(input, from: &inputOffset) else {
                bodyByteCount = parser.bodyByteCount
                if parser.takeExpectation() { output = HTTPResponse.goOn }
                return nil
            }
            bodyByteCount = request.body.count
            keepsAlive = request.keepsAlive
            isAnswering = true
            defer { descriptors = [] }
            return .answer(request, descriptors)
        } catch {
            refuse(error)
            return nil
        }
    }

    /// Says why, and ends the connection with it.
    func refuse(_ error: HTTPError) {
        bodyByteCount = 0
        parser = HTTPParser()
        descriptors = []
        keepsAlive = false
        output += HTTPResponse(error).bytes(keepsAlive: false)
    }

    /// The request at work has its answer, which the next `proceed` sends.
    func answer(_ response: HTTPResponse) {
        isAnswering = false
        bodyByteCount = 0
        output = response.bytes(keepsAlive: keepsAlive)
    }

    /// The answer begins, and goes on until one of both ends it.
    func answer(_ lines: HTTPLines) {
        bodyByteCount = 0
        output = lines.head
        self.lines = lines
    }

    /// Sends what waits; true when all is sent.
    private func flush() -> Bool {
        while outputOffset < output.count {
            switch socket.send(output, outputOffset..<output.count) {
            case .moved(let count): outputOffset += count
            case .wouldBlock: return false
            case .endOfFile, .failed:
                isGone = true
                return false
            }
        }
        output = []
        outputOffset = 0
        return true
    }
}
