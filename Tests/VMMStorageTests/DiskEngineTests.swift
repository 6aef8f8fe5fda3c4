import Foundation
import Testing
import VMMBase
import VMMHost
import VMMStorage
import VMMTestSupport

/// Each engine on a file of its own, with the same questions. Where the kernel has no io_uring the
/// tests of the ring are left out.
@Suite("DiskEngine")
struct DiskEngineTests {
    enum Kind: CaseIterable {
        case aio, ring
    }

    private static let fileByteCount = 8192
    private static let kinds = hasRing ? Kind.allCases : [.aio]
    private static let hasRing = (try? IORing(depth: 1)) != nil

    /// An engine, its file and guest memory for its transfers.
    private struct Fixture {
        let directory: TemporaryDirectory
        let path: String
        let file: FileDescriptor
        let engine: any DiskEngine
        let memory: GuestMemory

        init(_ kind: Kind, options: FileDescriptor.OpenOptions = .readWrite) throws {
            directory = try TemporaryDirectory()
            path = directory.file("disk")
            let bytes = (0..<DiskEngineTests.fileByteCount).map { UInt8(truncatingIfNeeded: $0) }
            try Data(bytes).write(to: URL(filePath: path))
            file = try FileDescriptor.open(path, options)
            engine =
                kind == .ring
                ? try RingEngine([file], depth: 16) : try AIOEngine([file], depth: 16)
            let range = GuestRange(start: GuestAddress(0), count: 64 << 10)
            memory = try GuestMemory(ranges: [range].compactMap { $0 }, usesHugePages: false)
        }

        func vector(_ pieces: [(UInt64, UInt32)]) throws -> GuestVector {
            let vector = try GuestVectorArena(vectors: 1, capacity: 8).makeVector()
            for (address, count) in pieces {
                _ = vector.append(GuestAddress(address), count: count, in: memory)
            }
            return vector
        }

        func perform(_ operation: DiskOperation) -> Int32? {
            engine.enqueue(operation, on: 0, token: 7)
            engine.submit()
            engine.wait()
            return engine.nextCompletion().flatMap { $0.token == 7 ? $0.result : nil }
        }

        var contents: [UInt8] {
            get throws { Array(try Data(contentsOf: URL(filePath: path))) }
        }
    }

    @Test("a read fills the vector's slices, short at the end of the file", arguments: kinds)
    func reads(kind: Kind) throws {
        let fixture = try Fixture(kind)
        let vector = try fixture.vector([(0, 10), (100, 20)])
        let size = UInt64(Self.fileByteCount)
        #expect(fixture.perform(.read(vector, offset: 5)) == 30)
        #expect(fixture.memory.copyOut(GuestAddress(100), count: 2) == [15, 16])
        #expect(fixture.perform(.read(vector, offset: size - 12)) == 12)
        #expect(fixture.perform(.read(vector, offset: size)) == 0)
    }

    @Test("a write reaches the file", arguments: kinds)
    func writes(kind: Kind) throws {
        let fixture = try Fixture(kind)
        _ = fixture.memory.copyIn([0xaa, 0xbb, 0xcc], at: GuestAddress(0))
        let vector = try fixture.vector([(0, 1), (1, 2)])
        #expect(fixture.perform(.write(vector, offset: 100)) == 3)
        #expect(try fixture.contents[99..<104] == [99, 0xaa, 0xbb, 0xcc, 103])
    }

    @Test("a write to a file opened for reading is EBADF", arguments: kinds)
    func badDescriptor(kind: Kind) throws {
        let fixture = try Fixture(kind, options: .readOnly)
        let vector = try fixture.vector([(0, 1)])
        #expect(fixture.perform(.write(vector, offset: 0)) == -EBADF)
    }

    @Test("a flush succeeds", arguments: kinds)
    func flushes(kind: Kind) throws {
        #expect(try Fixture(kind).perform(.flush) == 0)
    }

    @Test(
        "a range is zeroed and the file keeps its size, or the file system cannot",
        arguments: hasRing ? [Kind.ring] : [],
        [.discard, .writeZeros(mayUnmap: true), .writeZeros(mayUnmap: false)]
            as [FileDescriptor.RangeOperation])
    func ranges(kind: Kind, operation: FileDescriptor.RangeOperation) throws {
        let fixture = try Fixture(kind)
        let result = fixture.perform(.range(operation, offset: 4096, count: 4096))
        let expected =
            result == 0
            ? Array(repeating: 0, count: 4096)
            : (0..<4096).map {
                UInt8(truncatingIfNeeded: $0)
            }
        #expect(result == 0 || result == -EOPNOTSUPP)
        #expect(try fixture.contents.suffix(4096) == ArraySlice(expected))
        #expect(try fixture.contents.count == Self.fileByteCount)
    }

    @Test("an offset or a length that no file has is an error, not a trap", arguments: kinds)
    func hugeNumbers(kind: Kind) throws {
        let fixture = try Fixture(kind)
        let vector = try fixture.vector([(0, 8)])
        let range = DiskOperation.range(.discard, offset: .max, count: .max)
        #expect(fixture.perform(.read(vector, offset: .max)) ?? 0 <= 0)
        #expect(fixture.perform(.write(vector, offset: UInt64(Int64.max))) ?? 0 < 0)
        #expect(!fixture.engine.supports(range) || fixture.perform(range) ?? 0 < 0)
    }

    @Test(
        "more requests than the ring has room for are all answered, each once",
        arguments: kinds)
    func manyRequests(kind: Kind) throws {
        let fixture = try Fixture(kind)
        for token in 0..<10 { fixture.engine.enqueue(.flush, on: 0, token: UInt64(token)) }
        fixture.engine.submit()
        var tokens: Set<UInt64> = []
        while tokens.count < 10 {
            fixture.engine.wait()
            while let completion = fixture.engine.nextCompletion() {
                #expect(tokens.insert(completion.token).inserted)
            }
        }
        #expect(fixture.engine.nextCompletion() == nil)
    }

    @Test(
        "a ring's descriptor is readable while completions wait",
        .enabled(if: hasRing, "the kernel has no io_uring"))
    func descriptor() throws {
        let fixture = try Fixture(.ring)
        let source = fixture.engine.completionSource
        let before = source.isReady(.readable)
        fixture.engine.enqueue(.flush, on: 0, token: 1)
        fixture.engine.submit()
        let after = source.isReady(.readable, waitingMilliseconds: 10_000)
        _ = fixture.engine.nextCompletion()
        #expect(!before && after)
        #expect(!source.isReady(.readable))
    }
}
