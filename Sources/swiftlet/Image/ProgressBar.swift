import VMMHost

/// How far long work is, on standard error; silent unless somebody looks at it there.
struct ProgressBar {
    private let isShown: Bool
    private let total: UInt64
    private var permille: UInt64 = .max

    private static let width = 40

    /// `isForced`: even if standard error is no terminal.
    init(total: UInt64, isForced: Bool) {
        self.total = max(total, 1)
        isShown = isForced || FileDescriptor.standardError.isTerminal
    }

    mutating func show(_ done: UInt64) {
        let now = UInt64(Double(done) / Double(total) * 1000)
        guard isShown, now != permille else { return }
        permille = now
        let filled = Int(now) * Self.width / 1000
        let bar =
            String(repeating: "#", count: filled)
            + String(repeating: ".", count: Self.width - filled)
        FileDescriptor.standardError.writeAll("\r[\(bar)] \(now / 10).\(now % 10) %")
    }

    /// Leaves the line for what comes next.
    func end() {
        if isShown { FileDescriptor.standardError.writeAll("\n") }
    }
}
