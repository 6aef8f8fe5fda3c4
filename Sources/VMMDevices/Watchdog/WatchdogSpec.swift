import VMMBase
import VMMHost
import VMMSandbox
import VMMVirtIO

/// `--watchdog`: a watchdog that resets a guest which falls silent.
package struct WatchdogSpec: DeviceSpec {
    package static let word = "watchdog"
    package static let summary = "A watchdog: resets a guest that was heard once and is silent"
    package static let isFlag = true
    package static var fields: [OptionField] { [] }
    package static var sandbox: SandboxNeeds { SandboxNeeds(serving: SandboxNeeds.timerCalls) }

    package static func parse(_ text: OptionText) throws(ConfigurationProblem) -> WatchdogSpec {
        try text.requireNothingMore()
        return WatchdogSpec()
    }

    package func build(_ context: DeviceContext) throws -> BuiltDevice {
        .virtIO(
            try VirtIOWatchdog(id: context.id, clock: context.clock) { [report = context.report] in
                report(.watchdogExpired)
            })
    }
}
