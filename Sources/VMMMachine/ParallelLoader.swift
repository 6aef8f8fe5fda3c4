import Synchronization
import VMMBase
import VMMHost

/// Reads files into guest memory with several threads: what takes the time is clearing and
/// filling fresh huge pages, which one core does at a few GB/s (TESTBED, lesson 3).
struct ParallelLoader: Sendable {
    /// A part of a file and where it goes.
    struct Piece: Sendable {
        let file: FileDescriptor
        let offset: UInt64
        let count: UInt64
        let address: GuestAddress
    }

    /// Pieces end at multiples of this guest address, so that no two threads fill one huge page;
    /// large enough that taking one costs nothing.
    private static let pieceBytes: UInt64 = 4 << 20
    /// Below this a second thread costs more than it saves.
    private static let worthwhileBytes: UInt64 = 8 << 20
    /// More threads wait for memory, not for work.
    private static let maximumThreads = 4

    private let pieces: [Piece]
    private let memory: GuestMemory

    init(_ wholes: [Piece], into memory: GuestMemory) {
        pieces = wholes.flatMap { Self.split($0) }
        self.memory = memory
    }

    /// Starts the helpers; what they do until `finish` costs the caller nothing.
    func start() -> Loading {
        let next = Cursor()
        let total = pieces.reduce(UInt64(0)) { $0 + $1.count }
        let helpers =
            total < Self.worthwhileBytes
            ? 0 : min(Self.maximumThreads, HostThread.processorCount) - 1
        // A thread that does not start leaves its share to the others.
        let threads = (0..<helpers).compactMap { _ in
            try? HostThread(name: "load", role: .loader) { work(next) }
        }
        return Loading(loader: self, next: next, threads: threads)
    }

    /// A load under way.
    struct Loading {
        fileprivate let loader: ParallelLoader
        fileprivate let next: Cursor
        fileprivate let threads: [HostThread]

        /// Helps with the rest; returns when everything is there and no thread is left.
        func finish() throws {
            loader.work(next)
            end()
            if let error = next.error { throw error }
        }

        /// Gives up what nobody has begun with; returns when no thread is left. For a machine that
        /// is given up before `finish`; after it there is nothing to do.
        func end() {
            next.giveUp()
            for thread in threads { thread.join() }
        }
    }

    /// What the threads share: the next piece's number, and the first error.
    fileprivate final class Cursor: Sendable {
        private let index = Atomic<Int>(0)
        private let failure = Mutex<HostError?>(nil)

        func take() -> Int { index.wrappingAdd(1, ordering: .relaxed).oldValue }
        /// From here on there are no more pieces; room is left for each thread to see so.
        func giveUp() { index.store(.max / 2, ordering: .relaxed) }
        func fail(_ error: HostError) { failure.withLock { $0 = $0 ?? error } }
        var error: HostError? { failure.withLock { $0 } }
    }

    fileprivate func work(_ next: Cursor) {
        var index = next.take()
        while index < pieces.count {
            let piece = pieces[index]
            do throws(HostError) {
                try memory.load(
                    piece.file, offset: piece.offset, count: piece.count, at: piece.address)
            } catch {
                next.fail(error)
            }
            index = next.take()
        }
    }

    private static func split(_ whole: Piece) -> [Piece] {
        var pieces: [Piece] = []
        var done: UInt64 = 0
        while done < whole.count, let address = whole.address.advanced(by: done) {
            let toBoundary = pieceBytes - address.rawValue % pieceBytes
            let count = min(toBoundary, whole.count - done)
            pieces.append(
                Piece(
                    file: whole.file, offset: whole.offset + done, count: count, address: address))
            done += count
        }
        return pieces
    }
}
