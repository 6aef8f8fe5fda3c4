import VMMBase
import VMMBus
import VMMSandbox
import VMMVirtIO

/// `--pvpanic`: a device by which a guest's kernel says that it panics.
package struct PanicSpec: DeviceSpec {
    package static let word = "pvpanic"
    package static let summary = "A device that tells of a guest's panic: the event 'guest panic'"
    package static let isFlag = true
    package static var fields: [OptionField] { [] }
    package static var sandbox: SandboxNeeds { SandboxNeeds() }

    package static func parse(_ text: OptionText) throws(ConfigurationProblem) -> PanicSpec {
        try text.requireNothingMore()
        return PanicSpec()
    }

    package func build(_ context: DeviceContext) throws -> BuiltDevice {
        let (report, limiter) = (context.report, LogLimiter(clock: context.clock))
        return .card(byteCount: PanicDevice.byteCount) { bus, address in
            PanicDevice(on: bus, at: address, limiter: limiter) { report(.panicked($0)) }
        }
    }
}
