import VMMBase
import VMMSandbox

/// What the command line says of the monitor's own confinement.
package struct SandboxOptions: Sendable {
    /// `--seccomp`: what becomes of a system call that a thread has no business with.
    package enum Filter: String, CaseIterable, Sendable {
        /// It ends the process, with a line that names thread and call.
        case on = "true"
        /// There are no filters.
        case off = "false"
        /// It is done, and the kernel's log tells of it.
        case log
        /// It fails.
        case refuse = "errno"

        /// What the kernel does; nil without filters.
        package var verdict: FilterProgram.Verdict? {
            switch self {
            case .on: .trap
            case .off: nil
            case .log: .log
            case .refuse: .fail(1)  // EPERM
            }
        }
    }

    package static let filterOption = "--seccomp"
    package static let filesOption = "--landlock"

    package var filter = Filter.on
    /// Files are reached by their paths only if they are the machine's; nil: where the kernel can
    /// see to it.
    package var isHeldToFiles: Bool?
    /// What may be reached whatever the machine is.
    package var rules: [LandlockRule] = []
    /// Where the API is served, if that is a file.
    package var apiSocket: String?

    package init() {}

    mutating func setFilter(_ text: String) throws(ConfigurationProblem) {
        guard let filter = Filter(rawValue: text) else {
            let known = Filter.allCases.map(\.rawValue).joined(separator: ", ")
            throw ConfigurationProblem(
                option: Self.filterOption, value: text, reason: "expected one of \(known)")
        }
        self.filter = filter
    }

    /// Cloud Hypervisor's flag, or a word behind it.
    mutating func setHeldToFiles(_ values: [String]) throws(ConfigurationProblem) {
        switch values {
        case [], ["on"]: isHeldToFiles = true
        case ["off"]: isHeldToFiles = false
        default:
            throw ConfigurationProblem(
                option: Self.filesOption, value: values.joined(separator: " "),
                reason: "expected on or off")
        }
    }
}
