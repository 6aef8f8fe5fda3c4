import Foundation

/// Collects what comes out of a descriptor, on a thread of its own, which wakes all who wait on
/// `changed`.
final class Capture: @unchecked Sendable {
    private let changed: NSCondition
    private var bytes = Data()
    private var isOver = false

    /// Takes ownership of the descriptor.
    init(_ descriptor: Int32, changed: NSCondition) {
        self.changed = changed
        Thread.detachNewThread { [self] in collect(descriptor) }
    }

    var text: String {
        changed.withLock { textLocked }
    }

    /// Without the terminal's carriage returns. For a caller that holds the lock of `changed`.
    var textLocked: String {
        String(decoding: bytes, as: UTF8.self)
    }

    /// How often `text` was printed; what a guest's script says (`= key value`) counts when its
    /// line is over, for what is typed next is echoed, and would stand in it. For a caller that
    /// holds the lock of `changed`, which may ask at each new byte: a plain search, for these tests
    /// are compiled without optimization.
    func countLocked(of text: String) -> Int {
        let word = Data(text.utf8)
        var count = 0
        var rest = bytes.startIndex
        while let found = bytes.range(of: word, in: rest..<bytes.endIndex) {
            if text.hasPrefix("= "), !bytes[found.upperBound...].contains(0x0a) { break }
            count += 1
            rest = found.upperBound
        }
        return count
    }

    /// Whether the other end is closed. For a caller that holds the lock of `changed`.
    var isOverLocked: Bool { isOver }

    private func collect(_ descriptor: Int32) {
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            changed.withLock {
                if count > 0 {
                    bytes.append(contentsOf: buffer[..<count].filter { $0 != 13 })
                } else {
                    isOver = true
                }
                changed.broadcast()
            }
            if count <= 0 { break }
        }
        close(descriptor)
    }
}
