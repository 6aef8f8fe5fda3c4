import VMMBus

/// What a device wants its interrupt line to be. Part of the device's locked state: the state
/// decides under the lock, and one thread at a time carries the changes out without it, in order,
/// so that neither a level nor an edge is lost between threads.
struct LineLevel: Sendable {
    /// What the thread that carries out does next.
    enum Step: Sendable {
        case low, high
        /// The line fell and rose while the last step was under way: an edge of its own.
        case again

        func apply(to line: any InterruptLine) {
            switch self {
            case .low: line.set(false)
            case .high: line.set(true)
            case .again:
                line.set(false)
                line.set(true)
            }
        }
    }

    private(set) var isHigh = false
    private var rises: UInt64 = 0
    private var isDriving = false
    private var driven: (isHigh: Bool, rises: UInt64) = (false, 0)

    mutating func set(_ high: Bool) {
        if high, !isHigh { rises &+= 1 }
        isHigh = high
    }

    /// True when the caller must now carry out steps until there is none left; false when there is
    /// none, or another thread is at it.
    mutating func beginDriving() -> Bool {
        guard !isDriving, isHigh != driven.isHigh || isHigh && rises != driven.rises else {
            return false
        }
        isDriving = true
        return true
    }

    mutating func nextStep() -> Step? {
        defer { driven = (isHigh, rises) }
        if isHigh != driven.isHigh { return isHigh ? .high : .low }
        if isHigh, rises != driven.rises { return .again }
        isDriving = false
        return nil
    }
}
