import Synchronization

/// What every thread of the process does to itself before its work begins. Set by the main thread;
/// a thread takes what is set when it starts.
package final class Confinement: Sendable {
    /// Makes a role's program, as the kernel takes it; nil without filters.
    private let program: (@Sendable (ThreadRole) -> [UInt64])?
    /// Rules that allow no file at all; nil without landlock.
    private let nothing: LandlockRules?
    /// What the main thread, and what does its errands, keep.
    private let kept: Capabilities

    private static let current = Mutex<Confinement?>(nil)

    /// `nothing` has no rule. Each thread calls `program` for itself and forgets the result. Of the
    /// capabilities the main thread keeps `kept`, and no other thread any.
    package init(
        program: (@Sendable (ThreadRole) -> [UInt64])?, nothing: LandlockRules?,
        keeping kept: Capabilities
    ) {
        self.program = program
        self.nothing = nothing
        self.kept = kept
    }

    /// Makes this what threads do from now on.
    package func start() { Self.current.withLock { $0 = self } }

    /// Confines the calling thread, which has just started. One that cannot be confined does not
    /// go on, and neither does the process.
    static func apply(_ role: ThreadRole) {
        guard role != .tool, let confinement = current.withLock({ $0 }) else { return }
        do throws(HostError) {
            try confinement.confine(role, files: role == .errand ? nil : confinement.nothing)
        } catch {
            TerminalSettings.restoreAll()
            FileDescriptor.standardError.writeAll("a thread cannot be confined: \(error)\n")
            terminateProcess(1)
        }
    }

    /// Confines the main thread, to the files of `files`; nil for all. It cannot be undone, and
    /// holds for threads that start afterwards, too.
    package func confineControl(files: LandlockRules?) throws(HostError) {
        try confine(.control, files: files)
    }

    private func confine(_ role: ThreadRole, files: LandlockRules?) throws(HostError) {
        let isControl = role == .control || role == .errand
        try Privileges.drop(keeping: isControl ? kept : [])
        try Privileges.forbidNew()
        try files?.restrictThread()
        // Last, for it allows none of the above.
        if let program { try SystemCallFilter.install(program(role)) }
    }
}
