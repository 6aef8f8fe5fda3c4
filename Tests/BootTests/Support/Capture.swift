import Foundation

/// Collects what comes out of a descriptor, on a thread of its own, which wakes all who wait on
/// `changed`.
final class Capture: @unchecked Sendable {
    private let changed: NSCondition
    private var bytes: [UInt8] = []
    private var isOver = false

    /// Takes ownership of the descriptor.
    init(_ descriptor: Int32, changed: NSCondition) {
        self.changed = changed
        Thread.detachNewThread { [self] in collect(descriptor) }
    }

    var text: String {
        changed.withLock { textLocked }
    }

    /// For a caller that holds the lock of `changed`. Without the terminal's carriage returns.
    var textLocked: String {
        String(decoding: bytes.filter { $0 != 13 }, as: UTF8.self)
    }

    /// Whether the other end is closed. For a caller that holds the lock of `changed`.
    var isOverLocked: Bool { isOver }

    private func collect(_ descriptor: Int32) {
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            changed.withLock {
                if count > 0 { bytes += buffer[..<count] } else { isOver = true }
                changed.broadcast()
            }
            if count <= 0 { break }
        }
        close(descriptor)
    }
}
