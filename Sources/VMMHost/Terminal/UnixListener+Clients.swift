import VMMBase

extension UnixListener {
    /// Has `take` called with each client, on the loop's thread, until the loop lets go of
    /// `descriptor`. While descriptors or memory run out, the clients wait for a second at a time:
    /// a listener that stays readable would keep the loop busy.
    package func serve(
        on loop: EventLoop, take: @escaping (FileDescriptor) -> Void
    ) throws(HostError) {
        try serve(
            on: loop, pauseNanoseconds: 1_000_000_000,
            next: { [self] () throws(HostError) in try next() }, take: take)
    }

    /// As above with another way to accept, for tests.
    func serve(
        on loop: EventLoop, pauseNanoseconds: UInt64,
        next: @escaping () throws(HostError) -> FileDescriptor?,
        take: @escaping (FileDescriptor) -> Void
    ) throws(HostError) {
        let (descriptor, path) = (descriptor, path)
        // Made before it is needed: a timer takes a descriptor too.
        let pause = try Timer()
        try loop.add(pause.descriptor, [.readable, .edgeTriggered]) { [unowned loop] in
            loop.change(descriptor, to: [.readable])
        }
        var hasWarned = false
        try loop.add(descriptor, [.readable]) { [unowned loop] in
            do throws(HostError) {
                if let client = try next() { take(client) }
            } catch {
                if !hasWarned { Log.warning("socket '\(path)': its clients wait: \(error)") }
                hasWarned = true
                loop.change(descriptor, to: [])
                pause.set(nanoseconds: pauseNanoseconds)
            }
        }
    }
}
