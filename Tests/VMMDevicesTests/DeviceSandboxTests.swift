import Testing
import VMMDevices
import VMMHost

@testable import VMMSandbox

/// What the devices' specs ask of the host, all of them.
@Suite("Sandboxes of devices")
struct DeviceSandboxTests {
    private static let everything = DeviceCatalog.all.reduce(into: SandboxNeeds()) {
        $0.add($1.sandbox)
    }
    private static let confined = ThreadRole.allCases.filter { $0 != .tool }

    private func rule(_ call: SystemCall, _ role: ThreadRole) -> SystemCallRules.Rule? {
        ThreadRules(Self.everything, takesRequests: true).rules(of: role).rules
            .first { $0.call == call }
    }

    @Test("with all devices there are, sockets are Unix sockets alone", arguments: confined)
    func sockets(role: ThreadRole) {
        let families = rule(.socket, role)?.tests.first { $0.index == 0 }?.values ?? []
        #expect(families == [] || families == [1])
        #expect(rule(.socket, role) == nil || families == [1])
    }

    @Test("no thread signals a process by its number, or starts one", arguments: confined)
    func signals(role: ThreadRole) {
        #expect(rule(.kill, role) == nil)
        // CLONE_THREAD is in the only flags that there are.
        #expect(rule(.clone, role)?.tests.first?.values.allSatisfy { $0 & 0x10000 != 0 } != false)
    }

    @Test("a machine without a tap has no request of taps, and one with a tap has")
    func taps() {
        // TUNSETIFF
        let makeTap: UInt32 = 0x4004_54ca
        func allows(_ needs: SandboxNeeds) -> Bool {
            ThreadRules(needs, takesRequests: false).rules(of: .control).rules
                .first { $0.call == .ioctl }?.tests.first?.values.contains(makeTap) == true
        }
        let others = DeviceCatalog.all.filter { $0.word != "net" }
            .reduce(into: SandboxNeeds()) { $0.add($1.sandbox) }
        #expect(!allows(others))
        #expect(allows(Self.everything))
    }
}
