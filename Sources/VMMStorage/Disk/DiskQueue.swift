import Synchronization
import VMMBase
import VMMHost

/// The requests of one virtqueue on their way to a disk: each goes to the engine where the extent
/// map knows the place, and to the slow lane where it does not. One thread: the queue's loop. No
/// allocation and, with its batch, one system call for a request on the fast way.
package final class DiskQueue {
    /// A request in flight; the caller names it by its place, below `depth`.
    private struct Slot {
        var request = DiskRequest.flush
        /// In bytes, of a transfer or a range.
        var done: UInt64 = 0
        /// What the engine has been given of it.
        var step: UInt64 = 0
        /// The file cannot zero a range: zeros are written instead.
        var writesZeros = false
        var byteCount: UInt64 = 0
        var started: UInt64 = 0
    }

    /// An answer: the request's slot, and 0 or the `errno` of its failure.
    package struct Completion: Sendable {
        package let slot: Int
        package let code: Int32
    }

    /// What the slow lane has done: a request, or of a long range `step` bytes.
    private struct Letter {
        let slot: Int
        let code: Int32
        var step: UInt64 = 0
    }

    private final class Mailbox: Sendable {
        let bell: EventFD
        private let letters = Mutex<[Letter]>([])

        init() throws(HostError) { bell = try EventFD() }

        func put(_ letter: Letter) {
            letters.withLock { $0.append(letter) }
            bell.signal()
        }

        func takeAll(into mail: inout [Letter]) {
            letters.withLock { letters in
                mail.append(contentsOf: letters)
                letters.removeAll(keepingCapacity: true)
            }
        }
    }

    /// Ranges above this are walked by the slow lane, so much at a time: the loop must not look at
    /// a table for long, and who waits for the queue not for terabytes.
    private static let longRange: UInt64 = 64 << 20
    /// Zeros above this are filled in by the slow lane: a request costs the loop little.
    private static let longZeros: UInt64 = 1 << 20
    /// Zeros that the loop fills in between two looks at the clock, which is once a batch.
    private static let batchZeros: UInt64 = 8 << 20

    private let disk: Disk
    private let engine: (any DiskEngine)?
    private let mailbox: Mailbox
    private let throttle: Throttle?
    private let counters: DiskCounters
    private let clock: any HostClock
    /// For what a guest may provoke as often as it likes.
    private let log: LogLimiter
    private var slots: [Slot]
    /// Answered on the spot or taken from the mailbox; last in, first out.
    private var finished: [Completion] = []
    private var mail: [Letter] = []
    /// Somebody waits for what is on its way.
    private var isSettling = false
    private var atEngine = 0
    /// Looking into an empty mailbox is a system call: nobody looks while nothing can be there.
    private var onSlowLane = 0
    private var now: UInt64 = 0
    private var zerosLeft = DiskQueue.batchZeros

    /// `depth`: the most requests at once.
    package init(_ disk: Disk, depth: Int, clock: any HostClock) throws(HostError) {
        self.disk = disk
        self.clock = clock
        log = LogLimiter(clock: clock)
        engine = try disk.makeEngine(depth: UInt32(depth))
        mailbox = try Mailbox()
        throttle = try disk.limiter.map { limiter throws(HostError) in
            try Throttle(limiter, depth: depth)
        }
        counters = disk.takeCounters()
        slots = Array(repeating: Slot(), count: depth)
        finished.reserveCapacity(depth)
        mail.reserveCapacity(depth)
    }

    deinit { disk.giveBack(counters) }

    /// Readable when there may be completions, or when throttled requests may go on.
    package var wakeSources: [FileDescriptor] {
        [mailbox.bell.descriptor] + (engine.map { [$0.completionSource] } ?? [])
            + (throttle.map { [$0.timer.descriptor] } ?? [])
    }

    /// One of `wakeSources` that the loop may wait in.
    package var ring: IORing? { engine?.ring }

    /// Takes the time of the requests and answers that follow: once a batch is exact enough for
    /// microseconds.
    package func takeTime() {
        now = clock.monotonicNanoseconds()
        zerosLeft = Self.batchZeros
    }

    /// Takes a request; its vector stays untouched by others until the completion.
    package func start(_ request: DiskRequest, slot: Int) {
        slots[slot].request = request
        slots[slot].done = 0
        slots[slot].writesZeros = false
        slots[slot].byteCount = request.byteCount
        slots[slot].started = now
        if let throttle, !throttle.admits(slots[slot].byteCount, slot: slot) { return }
        advance(slot)
    }

    /// Hands all that was started to the kernel.
    package func submit() {
        if atEngine > 0 { engine?.submit() }
    }

    /// The next answer, or nil. What it sets going needs a `submit`.
    package func nextCompletion() -> Completion? {
        while true {
            if let completion = finished.popLast() {
                count(completion)
                return completion
            }
            if let completion = engine?.nextCompletion() {
                atEngine -= 1
                proceed(Int(completion.token), completion.result)
                continue
            }
            if onSlowLane > 0, mailbox.bell.clear() {
                takeMail()
                if !finished.isEmpty { continue }
            }
            guard !isSettling, let throttle, releaseThrottled(throttle) else { return nil }
        }
    }

    /// Lets all go that the rate limit holds back, before its time; it counts all the same.
    package func release() {
        while let slot = throttle?.next() { advance(slot) }
        submit()
    }

    /// Waits until nothing is on its way; what the rate limit holds back stays. `takeAnswers` takes
    /// the completions there are, and may start requests.
    package func settle(_ takeAnswers: () -> Void) {
        isSettling = true
        takeAnswers()
        while atEngine + onSlowLane > 0 {
            wait()
            takeAnswers()
        }
        isSettling = false
    }

    /// Waits for an answer; only with requests on their way.
    package func wait() {
        submit()
        guard finished.isEmpty else { return }
        if atEngine > 0 {
            engine?.wait()
        } else {
            _ = mailbox.bell.descriptor.isReady(.readable, waitingMilliseconds: -1)
        }
    }

    private func takeMail() {
        mailbox.takeAll(into: &mail)
        onSlowLane -= mail.count
        for letter in mail {
            slots[letter.slot].done += letter.step
            let isLeft =
                letter.code == 0 && letter.step > 0
                && slots[letter.slot].done < slots[letter.slot].request.rangeByteCount
            // Discard is advice: what waits for the queue need not wait for all of it.
            let isLet = isSettling && slots[letter.slot].request.isDiscard
            if isLeft, !isLet {
                advance(letter.slot)
            } else {
                finish(letter.slot, letter.code)
            }
        }
        mail.removeAll(keepingCapacity: true)
        submit()
    }

    private func releaseThrottled(_ throttle: Throttle) -> Bool {
        var released = false
        while let slot = throttle.nextAdmitted() {
            advance(slot)
            released = true
        }
        submit()
        return released && !finished.isEmpty
    }

    private func finish(_ slot: Int, _ code: Int32) {
        finished.append(Completion(slot: slot, code: code))
    }

    private func count(_ completion: Completion) {
        guard completion.code == 0 else { return }
        let microseconds = (now &- slots[completion.slot].started) / 1000
        let byteCount = slots[completion.slot].byteCount
        switch slots[completion.slot].request {
        case .read: counters.countRead(byteCount: byteCount, microseconds: microseconds)
        case .write: counters.countWrite(byteCount: byteCount, microseconds: microseconds)
        case .flush, .discard, .writeZeros: break
        }
    }
}

// The way of one request.
extension DiskQueue {
    /// Takes the next step of a request: as far as one extent reaches.
    private func advance(_ slot: Int) {
        switch slots[slot].request {
        case .read(let vector, let offset): read(slot, vector, offset)
        case .write(let vector, let offset): write(slot, vector, offset)
        case .flush: flush(slot)
        case .discard(let offset, let count): range(slot, offset, count, .discard)
        case .writeZeros(let offset, let count, let mayUnmap):
            range(slot, offset, count, .writeZeros(mayUnmap: mayUnmap && disk.isSparse))
        }
    }

    private func read(_ slot: Int, _ vector: GuestVector, _ offset: UInt64) {
        while vector.byteCount > 0 {
            let extent = disk.extents.extent(
                at: offset + slots[slot].done, limit: vector.byteCount)
            switch extent.place {
            case .data(let file, let place, _) where isAligned(vector, place, extent.count):
                vector.limit(to: extent.count)
                enqueue(slot, .read(vector, offset: place), on: file, extent.count)
                return
            case .zeros
            where slots[slot].done + extent.count <= Self.longZeros && extent.count <= zerosLeft:
                zerosLeft -= extent.count
                vector.fillZeros(extent.count)
                vector.removeFirst(Int(clamping: extent.count))
                slots[slot].done += extent.count
            default:
                takeSlowLane(slot)
                return
            }
        }
        finish(slot, 0)
    }

    private func write(_ slot: Int, _ vector: GuestVector, _ offset: UInt64) {
        guard vector.byteCount > 0 else {
            finish(slot, 0)
            return
        }
        let extent = disk.extents.extent(at: offset + slots[slot].done, limit: vector.byteCount)
        if case .data(let file, let place, isWritable: true) = extent.place,
            isAligned(vector, place, extent.count)
        {
            vector.limit(to: extent.count)
            enqueue(slot, .write(vector, offset: place), on: file, extent.count)
        } else {
            takeSlowLane(slot)
        }
    }

    private func isAligned(_ vector: GuestVector, _ place: UInt64, _ count: UInt64) -> Bool {
        let alignment = disk.alignment
        if alignment == 1 { return true }
        return (place | count) % UInt64(alignment) == 0 && vector.isAligned(to: alignment)
    }

    private func flush(_ slot: Int) {
        if disk.isReadOnly {
            finish(slot, 0)
        } else if disk.hasLostWrites {
            finish(slot, HostError.ioCode)
        } else if let file = disk.flushFile, !disk.extents.hasUnflushedMetadata {
            enqueue(slot, .flush, on: file, 0)
        } else {
            takeSlowLane(slot)
        }
    }

    private func range(
        _ slot: Int, _ offset: UInt64, _ count: UInt64, _ operation: FileDescriptor.RangeOperation
    ) {
        if count - slots[slot].done > Self.longRange {
            takeSlowLane(slot)
            return
        }
        while slots[slot].done < count {
            let rest = count - slots[slot].done
            let extent = disk.extents.extent(at: offset + slots[slot].done, limit: rest)
            switch extent.place {
            case .data(let file, let place, isWritable: true):
                if slots[slot].writesZeros {
                    let step = min(extent.count, IORing.zeroByteCount)
                    guard (place | step) % UInt64(disk.alignment) == 0 else {
                        takeSlowLane(slot)
                        return
                    }
                    enqueue(slot, .zeros(offset: place, count: step), on: file, step)
                } else {
                    enqueue(
                        slot, .range(operation, offset: place, count: extent.count), on: file,
                        extent.count)
                }
                return
            case .zeros:
                slots[slot].done += extent.count
            default:
                takeSlowLane(slot)
                return
            }
        }
        finish(slot, 0)
    }

    private func enqueue(_ slot: Int, _ operation: DiskOperation, on file: Int, _ step: UInt64) {
        guard let engine, engine.supports(operation) else {
            // The image takes all that is left, not only this step.
            switch operation {
            case .read(let vector, _), .write(let vector, _): vector.unlimit()
            case .flush, .range, .zeros: break
            }
            takeSlowLane(slot)
            return
        }
        slots[slot].step = step
        atEngine += 1
        engine.enqueue(operation, on: file, token: UInt64(slot))
    }

    /// The engine has answered: `result` is what the system call returned, or -errno.
    private func proceed(_ slot: Int, _ result: Int32) {
        switch slots[slot].request {
        case .read(let vector, _), .write(let vector, _):
            guard result > 0 else {
                vector.unlimit()
                // An image may end before its last unit; what that means its format knows.
                if result == 0 { takeSlowLane(slot) } else { finish(slot, -result) }
                return
            }
            vector.removeFirst(Int(result))
            vector.unlimit()
            slots[slot].done += UInt64(result)
            advance(slot)
        case .flush:
            if result < 0 { disk.setLostWrites() }
            finish(slot, result < 0 ? -result : 0)
        case .discard:
            // Discard is advice: a file that cannot do it keeps its blocks.
            if result < 0, !HostError.refusesRange(-result) {
                finish(slot, -result)
            } else {
                slots[slot].done += slots[slot].step
                advance(slot)
            }
        case .writeZeros:
            proceedZeros(slot, result)
        }
    }

    private func proceedZeros(_ slot: Int, _ result: Int32) {
        if slots[slot].writesZeros {
            slots[slot].done += UInt64(clamping: result)
            if result > 0 {
                advance(slot)
            } else {
                finish(slot, result < 0 ? -result : HostError.ioCode)
            }
        } else if result >= 0 {
            slots[slot].done += slots[slot].step
            advance(slot)
        } else if HostError.refusesRange(-result) {
            slots[slot].writesZeros = true
            advance(slot)
        } else {
            finish(slot, -result)
        }
    }
}

// The slow lane.
extension DiskQueue {
    /// Leaves what is left of a request to the image.
    private func takeSlowLane(_ slot: Int) {
        let done = slots[slot].done
        let mailbox = mailbox
        onSlowLane += 1
        let isSparse = disk.isSparse
        switch slots[slot].request {
        case .read(let vector, let offset):
            let lent = LentVector(vector)
            answer(slot, mailbox) { image, buffer throws(ImageError) in
                try image.read(into: lent.vector, at: offset + done, through: &buffer)
            }
        case .write(let vector, let offset):
            let lent = LentVector(vector)
            answer(slot, mailbox) { image, buffer throws(ImageError) in
                try image.write(lent.vector, at: offset + done, through: &buffer)
            }
        case .flush:
            answer(slot, mailbox) { [disk] image, _ throws(ImageError) in
                try image.flush()
                // Another queue's engine may have been told meanwhile.
                guard !disk.hasLostWrites else { throw .host(HostFile.lostWritesError) }
            }
        case .discard(let offset, let count):
            let step = Self.step(offset + done, count - done)
            answer(slot, mailbox, step: step) { image, _ throws(ImageError) in
                try image.discard(at: offset + done, count: step)
            }
        case .writeZeros(let offset, let count, let mayUnmap):
            let step = Self.step(offset + done, count - done)
            answer(slot, mailbox, step: step) { image, _ throws(ImageError) in
                try image.writeZeros(
                    at: offset + done, count: step, mayUnmap: mayUnmap && isSparse)
            }
        }
    }

    /// Up to a multiple of `longRange`, so that no image's unit lies in two pieces.
    private static func step(_ offset: UInt64, _ count: UInt64) -> UInt64 {
        min(count, longRange - offset % longRange)
    }

    private func answer(
        _ slot: Int, _ mailbox: Mailbox, step: UInt64 = 0,
        _ work: @escaping @Sendable (any DiskImage, inout [UInt8]) throws(ImageError) -> Void
    ) {
        disk.lane.post { [disk, log] image, buffer in
            do throws(ImageError) {
                try work(image, &buffer)
                mailbox.put(Letter(slot: slot, code: 0, step: step))
            } catch {
                disk.noteLostWrites(of: image)
                log.debug("disk: \(error)")
                mailbox.put(Letter(slot: slot, code: error.code))
            }
        }
    }
}
