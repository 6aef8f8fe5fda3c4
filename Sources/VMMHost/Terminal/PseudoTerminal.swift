import CVMMLinux
import Glibc

/// A pseudo-terminal: we hold the master, a user opens `path`. The terminal's side is raw, and we
/// keep it open ourselves, so that a user who leaves is no hangup and may come back. Any thread.
package final class PseudoTerminal: Sendable {
    /// Our side.
    package let master: FileDescriptor
    /// Where a terminal program connects: "/dev/pts/3".
    package let path: String
    private let terminalSide: FileDescriptor

    /// Opens a new pair.
    package init() throws(HostError) {
        var raw: (master: Int32, terminal: Int32) = (-1, -1)
        // "/dev/pts/" and a number: 64 bytes are plenty.
        var name = [CChar](repeating: 0, count: 64)
        // SAFETY: the name fits in the buffer (pts(4)); settings and size stay at their defaults.
        guard unsafe openpty(&raw.master, &raw.terminal, &name, nil, nil) == 0 else {
            throw .last("open a pseudo-terminal")
        }
        master = FileDescriptor(owning: raw.master)
        terminalSide = FileDescriptor(owning: raw.terminal)
        path = String(
            decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        try master.closeOnExec()
        try terminalSide.closeOnExec()
        try TerminalSettings.makeRaw(own: terminalSide)
    }
}
