import VMMHost

/// A terminal's size in characters.
package struct TerminalSize: Equatable, Sendable {
    package var columns: UInt16
    package var rows: UInt16

    package init(columns: UInt16, rows: UInt16) {
        self.columns = columns
        self.rows = rows
    }
}

/// The host's end of a serial line or console: where the guest's bytes go, and where bytes for
/// the guest come from.
package protocol ByteChannel: AnyObject, Sendable {
    /// Takes bytes from the guest. Never waits: what nobody reads is kept up to a bound, and then
    /// the oldest goes first. Any thread.
    func send(_ byte: UInt8)
    /// As above, for several bytes.
    func send(_ bytes: [UInt8])

    /// Connects the channel to a loop. From then on output flows, and `receive` is called on the
    /// loop's thread with what comes in; with nil nothing is read. Called once, by the owner of
    /// the loop before it runs, or on its thread.
    func start(on loop: EventLoop, receive: (@Sendable ([UInt8]) -> Void)?) throws
    /// The machine is made and its guest is about to run: what the user had under the channel's
    /// name may be lost from here on, and not before. Called once, before the loop runs.
    func guestStarts()
    /// Back-pressure: no more than what is being delivered comes in while paused. Any thread.
    func setInputPaused(_ paused: Bool)
    /// Writes out what can be written, and gives up what the channel holds (a socket's file, a
    /// terminal's settings). Any thread, after the loop has ended.
    func finish()

    /// The terminal's size, or nil where there is no terminal. Any thread.
    var size: TerminalSize? { get }
    /// Sets what is called, on the thread of `terminalResized`, when the size has changed.
    func onResize(_ handler: @escaping @Sendable () -> Void)
    /// The process was told that its terminal has a new size (SIGWINCH). Any thread.
    func terminalResized()
}

extension ByteChannel {
    package var size: TerminalSize? { nil }
    package func onResize(_ handler: @escaping @Sendable () -> Void) {}
    package func terminalResized() {}
    package func guestStarts() {}
}

/// Discards output and has no input: the endpoints `off` and `null`.
package final class NullChannel: ByteChannel {
    package init() {}

    package func send(_ byte: UInt8) {}
    package func send(_ bytes: [UInt8]) {}
    package func start(on loop: EventLoop, receive: (@Sendable ([UInt8]) -> Void)?) {}
    package func setInputPaused(_ paused: Bool) {}
    package func finish() {}
}
