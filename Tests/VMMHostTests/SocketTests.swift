import Foundation
import Testing
import VMMBase
import VMMHost
import VMMTestSupport

@Suite("Stream sockets")
struct SocketTests {
    private let near: FileDescriptor
    private let far: FileDescriptor

    init() throws {
        let ends = try SocketPair.make()
        near = ends[0]
        far = ends[1]
    }

    @Test("a peek leaves the bytes where they are")
    func peeking() {
        #expect(near.send([1, 2, 3, 4], 1..<4) == .moved(3))
        var bytes: [UInt8] = []
        #expect(far.receive(into: &bytes, limit: 2, isPeek: true) == .moved(2))
        #expect(far.receive(into: &bytes, limit: 9, isPeek: false) == .moved(3))
        #expect(bytes == [2, 3, 2, 3, 4])
        #expect(far.receive(into: &bytes, limit: 9, isPeek: false) == .wouldBlock)
    }

    @Test("guest memory is sent in its order")
    func guestMemory() throws {
        let memory = try TestMemory.make()
        _ = memory.copyIn([1, 2, 3, 4], at: GuestAddress(0))
        let vector = try TestMemory.vector(memory, [(2, 2), (0, 1)])
        #expect(near.send(vector) == .moved(3))
        var bytes: [UInt8] = []
        #expect(far.receive(into: &bytes, limit: 9, isPeek: false) == .moved(3))
        #expect(bytes == [3, 4, 1])
    }

    @Test("a shut way is the end on the other side, and an error but no signal on this one")
    func shutting() {
        near.shutDown(.sending)
        var bytes: [UInt8] = []
        #expect(far.receive(into: &bytes, limit: 9, isPeek: false) == .endOfFile)
        #expect(near.send([1], 0..<1) == .failed(EPIPE))
        #expect(far.send([1], 0..<1) == .moved(1))
        near.shutDown(.receiving)
        #expect(far.send([1], 0..<1) == .failed(EPIPE))
    }

    @Test("an attempt to connect tells what it found")
    func attempts() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("s")
        func attempt(_ path: String) -> String {
            do throws(HostError) {
                _ = try UnixSocket.connectStream(to: path)
                return "connected"
            } catch {
                return error.wouldBlock ? "busy" : "\(error.isAbsence) \(error.reason)"
            }
        }
        #expect(attempt(path) == "true No such file or directory")
        let listener = try UnixListener(path: path, backlog: 0)
        #expect(attempt(path) == "connected")
        #expect(attempt(path) == "busy")
        #expect(try listener.next() != nil)
        #expect(try listener.next() == nil)
        #expect(attempt(String(repeating: "p", count: 200)) == "false File name too long")
        listener.removeFile()
    }
}
