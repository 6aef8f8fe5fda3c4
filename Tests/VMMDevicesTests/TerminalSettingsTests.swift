import Glibc
import Testing
import VMMHost

@Suite("TerminalSettings")
struct TerminalSettingsTests {
    private func localFlags(_ terminal: Int32) -> tcflag_t {
        var settings = termios()
        #expect(tcgetattr(terminal, &settings) == 0)
        return settings.c_lflag
    }

    @Test("a terminal becomes raw and gets its settings back, however often they are restored")
    func rawAndBack() throws {
        TerminalSettings.restoreAll()
        var pair: (master: Int32, terminal: Int32) = (-1, -1)
        #expect(openpty(&pair.master, &pair.terminal, nil, nil, nil) == 0)
        let before = localFlags(pair.terminal)
        // Stays open, as long as its settings may be restored.
        let kept = FileDescriptor(owning: dup(pair.terminal))
        try TerminalSettings.makeRaw(kept)
        #expect(localFlags(pair.terminal) & tcflag_t(ICANON | ECHO | ISIG) == 0)
        TerminalSettings.restoreAll()
        TerminalSettings.restoreAll()
        #expect(localFlags(pair.terminal) == before)
    }

    @Test("what is no terminal is left alone")
    func noTerminal() throws {
        try TerminalSettings.makeRaw(.open("/dev/null", [.readOnly]))
    }
}
