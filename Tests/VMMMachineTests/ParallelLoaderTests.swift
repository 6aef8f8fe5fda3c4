import Foundation
import Testing
import VMMBase
import VMMHost
import VMMTestSupport

@testable import VMMMachine

@Suite("ParallelLoader")
struct ParallelLoaderTests {
    /// Above what is worth a second thread.
    private static let byteCount: UInt64 = 24 << 20

    private let directory: TemporaryDirectory
    private let memory: GuestMemory
    private let loader: ParallelLoader

    init() throws {
        directory = try TemporaryDirectory()
        let bytes = Data(repeating: 0x5a, count: Int(Self.byteCount))
        try bytes.write(to: URL(fileURLWithPath: directory.file("kernel")))
        let range = try #require(GuestRange(start: GuestAddress(0), count: 32 << 20))
        memory = try GuestMemory(ranges: [range], usesHugePages: false)
        let piece = ParallelLoader.Piece(
            file: try FileDescriptor.open(directory.file("kernel"), [.readOnly]), offset: 0,
            count: Self.byteCount, address: GuestAddress(4096))
        loader = ParallelLoader([piece], into: memory)
    }

    @Test("all pieces are there when it has finished, and its end may be said again")
    func finishes() throws {
        let loading = loader.start()
        try loading.finish()
        loading.end()
        let end = memory.copyOut(GuestAddress(4095 + Self.byteCount), count: 2)
        #expect(end == [0x5a, 0])
    }

    @Test("given up, no thread is left, and nothing more comes into memory")
    func givesUp() throws {
        let loading = loader.start()
        loading.end()
        let before = memory.copyOut(GuestAddress(0), count: 32 << 20)
        try loading.finish()
        let isSame = memory.copyOut(GuestAddress(0), count: 32 << 20) == before
        #expect(isSame)
    }
}
