import CVMMLinux
import Glibc

// Waiting in an io_uring instead of epoll. A thread that hands requests to a ring and then waits in
// epoll makes three calls a batch; here the call that hands over is the one that waits, and the
// ring itself watches the doorbells.
extension EventLoop {
    /// What a ring watches as epoll would; all else stays with epoll, which the ring watches.
    static let ringInterest: Interest = [.readable, .edgeTriggered]

    /// Waits in `ring` from now on, if the kernel can do that: what its owner queues is handed over
    /// by the call that waits. The ring's descriptor was added before; removing it ends this. Of
    /// several rings the loop waits in one and watches the others, whose requests it hands over
    /// before it waits.
    package func wait(in ring: IORing) {
        guard ring.canWatch, watches[ring.descriptor.rawValue] != nil else { return }
        ring.isSubmittedByLoop = true
        rings.append(ring)
        if rings.count == 1 { enter(ring) }
    }

    /// If the descriptor is a ring's, waits in it no longer.
    func leaveRing(_ fd: Int32) {
        guard let index = rings.firstIndex(where: { $0.descriptor.rawValue == fd }) else { return }
        let ring = rings[index]
        if index == 0 { leave(ring) }
        ring.isSubmittedByLoop = false
        rings.remove(at: index)
        if index == 0, let next = rings.first { enter(next) }
    }

    private func enter(_ ring: IORing) {
        let own = ring.descriptor.rawValue
        _ = control(EPOLL_CTL_DEL, own, [])
        for (fd, watch) in watches where fd != own && watch.interest == Self.ringInterest {
            _ = control(EPOLL_CTL_DEL, fd, [])
            self.watch(fd, in: ring)
        }
        watches[epoll.rawValue] = Watch(
            handler: { [unowned self] in hasEpollEvents = true }, interest: Self.ringInterest)
        watch(epoll.rawValue, in: ring)
    }

    private func leave(_ ring: IORing) {
        unwatch(epoll.rawValue)
        watches[epoll.rawValue] = nil
        hasEpollEvents = false
        for (fd, watch) in watches where watch.poll != nil {
            unwatch(fd)
            // Cannot fail: the descriptor is open, and epoll had it before or could have had it.
            _ = control(EPOLL_CTL_ADD, fd, watch.interest)
        }
        let own = ring.descriptor.rawValue
        if let watch = watches[own] { _ = control(EPOLL_CTL_ADD, own, watch.interest) }
    }

    /// Has the ring watch a descriptor, under a number of its own: what the kernel still tells of
    /// an earlier one of the same descriptor is recognised.
    func watch(_ fd: Int32, in ring: IORing) {
        lastPoll = (lastPoll &+ 1) & 0x7fff_ffff
        watches[fd]?.poll = lastPoll
        ring.watch(fd, token: Self.token(fd, lastPoll))
    }

    /// Ends the ring's watching of a descriptor, if it does.
    func unwatch(_ fd: Int32) {
        guard let poll = watches[fd]?.poll else { return }
        watches[fd]?.poll = nil
        rings.first?.unwatch(token: Self.token(fd, poll))
    }

    private static func token(_ fd: Int32, _ poll: UInt32) -> UInt64 {
        IORing.watchBit | UInt64(poll) << 32 | UInt64(UInt32(bitPattern: fd))
    }

    /// One turn: hands over what is queued, waits, and serves what there is.
    func serve(_ ring: IORing, _ events: inout [epoll_event]) throws(HostError) {
        for other in rings.dropFirst() { other.submitNow() }
        if hasEpollEvents {
            // Level-triggered handlers may leave something: until epoll has no more, it is asked.
            ring.submitNow()
            hasEpollEvents = unsafe try serveEpoll(&events, waiting: false)
        } else {
            try ring.submitAndWait()
        }
        // The handlers may end the waiting in this ring; then the rest is epoll's.
        let isFinished = ring.takeAll { event in
            if rings.first === ring { handle(event, ring) }
        }
        if isFinished { watches[ring.descriptor.rawValue]?.handler() }
    }

    private func handle(_ event: IORing.Event, _ ring: IORing) {
        let fd = Int32(truncatingIfNeeded: event.token & 0xffff_ffff)
        guard let watch = watches[fd], let poll = watch.poll,
            event.token == Self.token(fd, poll)
        else { return }
        if event.result < 0, -event.result != ECANCELED {
            // Not a thing to be polled by a ring.
            watches[fd]?.poll = nil
            _ = control(EPOLL_CTL_ADD, fd, watch.interest)
            return
        }
        // The kernel gives up watching when it has no room to tell, or when the thread that began
        // it has ended. What is ready at the moment is told again.
        if event.isLast { self.watch(fd, in: ring) }
        if event.result >= 0 { watch.handler() }
    }
}
