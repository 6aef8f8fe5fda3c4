import Synchronization
import VMMBase
import VMMHost

/// The thread on which an image does what may wait: tables, allocation, copies, unaligned
/// transfers. One job at a time, in the order of posting. The thread starts with the first job, for
/// most raw disks never need it.
package final class SlowLane: Sendable {
    package typealias Job = @Sendable (any DiskImage, inout [UInt8]) -> Void

    /// Host memory for a piece of a transfer.
    private struct Work {
        let image: any DiskImage
        var buffer: [UInt8] = []
    }

    /// Large enough that a copy through host memory costs few calls, small enough for hundreds of
    /// machines on a host.
    static let bufferByteCount = 256 << 10

    private let work: LoopBound<Work>
    /// Keeps jobs apart where the host gave no thread and their posters run them.
    private let turn = Mutex<Void>(())
    private let hasWarned = Atomic<Bool>(false)
    private let running = Mutex<LoopThread?>(nil)

    init(_ image: any DiskImage) {
        work = LoopBound(adopting: Work(image: image))
    }

    /// Runs `job` on the lane's thread, after those posted before. The buffer has room for
    /// `bufferByteCount` bytes, and any content.
    func post(_ job: @escaping Job) {
        let loop: EventLoop? = running.withLock { running in
            if running == nil { running = start() }
            return running?.loop
        }
        guard let loop else {
            // A host that gives no thread: slow, but right.
            perform(job)
            return
        }
        loop.post { [self] in perform(job) }
    }

    private func perform(_ job: Job) {
        turn.withLock { _ in
            work.withValue { work in
                work.buffer.reserveCapacity(Self.bufferByteCount)
                job(work.image, &work.buffer)
            }
        }
    }

    private func start() -> LoopThread? {
        do throws(HostError) {
            return try LoopThread(name: "disk", role: .disk)
        } catch {
            // Said once: a guest asks for slow work as often as it likes.
            if !hasWarned.exchange(true, ordering: .relaxed) {
                Log.warning("disk: no thread for slow work: \(error)")
            }
            return nil
        }
    }

    /// Runs what was posted, ends the thread and closes the image.
    func close() -> ImageError? {
        let running = running.withLock { running in
            defer { running = nil }
            return running
        }
        running?.end()
        return work.withValue { work in
            do throws(ImageError) {
                try work.image.close()
                return nil
            } catch {
                return error
            }
        }
    }
}

// What a lane's jobs have in common: the guest's memory is read and written in pieces of
// `SlowLane.bufferByteCount` bytes, through the lane's buffer.
extension DiskImage {
    func read(
        into vector: GuestVector, at offset: UInt64, through buffer: inout [UInt8]
    ) throws(ImageError) {
        var place = offset
        while vector.byteCount > 0 {
            let count = Int(min(vector.byteCount, UInt64(SlowLane.bufferByteCount)))
            buffer.removeAll(keepingCapacity: true)
            buffer.append(contentsOf: repeatElement(0, count: count))
            var piece = buffer.mutableSpan
            try read(into: &piece, at: place)
            vector.copyIn(buffer.span)
            vector.removeFirst(count)
            place += UInt64(count)
        }
    }

    func write(
        _ vector: GuestVector, at offset: UInt64, through buffer: inout [UInt8]
    ) throws(ImageError) {
        var place = offset
        while vector.byteCount > 0 {
            let count = Int(min(vector.byteCount, UInt64(SlowLane.bufferByteCount)))
            buffer.removeAll(keepingCapacity: true)
            vector.copyOut(into: &buffer, limit: count)
            try write(buffer.span, at: place)
            vector.removeFirst(count)
            place += UInt64(count)
        }
    }
}
