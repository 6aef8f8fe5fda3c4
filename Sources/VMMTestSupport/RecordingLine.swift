import Synchronization
import VMMBus

/// An interrupt line that remembers what was done to it. Any thread.
package final class RecordingLine: InterruptLine {
    private let levels = Mutex<[Bool]>([])

    package init() {}

    package func set(_ level: Bool) { levels.withLock { $0.append(level) } }

    /// The line's level; false before the first call.
    package var isHigh: Bool { levels.withLock { $0.last ?? false } }

    /// How often the line rose: the interrupts of an edge-triggered input.
    package var riseCount: Int {
        levels.withLock { levels in
            zip([false] + levels, levels).count { before, after in after && !before }
        }
    }
}
