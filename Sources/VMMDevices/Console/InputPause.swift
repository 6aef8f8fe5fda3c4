/// Whether a channel's input shall be paused. Part of a device's locked state: the state decides
/// under the lock, and one thread at a time tells the channel without it, so that what was decided
/// last is told last.
struct InputPause: Sendable {
    private var isWanted = false
    private var isTold = false
    private var isTelling = false

    mutating func set(_ isWanted: Bool) { self.isWanted = isWanted }

    /// True when the caller must now tell what `next` says until it says nothing; false when there
    /// is nothing to tell, or another thread is at it.
    mutating func beginTelling() -> Bool {
        guard !isTelling, isWanted != isTold else { return false }
        isTelling = true
        return true
    }

    mutating func next() -> Bool? {
        isTelling = isWanted != isTold
        isTold = isWanted
        return isTelling ? isWanted : nil
    }
}
