import VMMBase
import VMMDevices
import VMMHost
import VMMSandbox

// What a monitor with these arguments needs of its host, for whoever builds the place it runs in.

extension CommandLineArguments {
    /// The files that it reaches by their paths, and the folders of those that it makes. Disk
    /// images are opened to learn what they fall back on.
    package func files() throws(ConfigurationProblem) -> [SandboxFile] {
        var files = configuration.landlockRules.map(\.file)
        for path in [configuration.kernel, configuration.initramfs].compactMap({ $0 }) {
            files.append(SandboxFile(path, .read))
        }
        for device in configuration.devices {
            files += try (device as? BlockSpec)?.allFiles() ?? device.files
            // Beside the socket: one that is made anew is another file.
            files += device.peers.map { .socket($0) }
        }
        for path in [logFile, eventMonitor?.path].compactMap({ $0 }) {
            files.append(SandboxFile(path, .write))
        }
        if case .path(let path) = apiSocket?.place { files.append(.socket(path)) }
        return files
    }

    /// Descriptors that it was started with for a use.
    package var descriptorNumbers: [Int32] {
        var numbers = configuration.devices.flatMap(\.descriptorNumbers)
        if case .descriptor(let number) = apiSocket?.place { numbers.append(number) }
        if let number = eventMonitor?.fd { numbers.append(number) }
        return numbers
    }

    package var usesHostNetwork: Bool { configuration.devices.contains(where: \.usesHostNetwork) }

    /// A device that is another program's work, which a place without programs cannot have.
    package func checkStartsNothing() throws(ConfigurationProblem) {
        guard let device = configuration.devices.first(where: \.startsProgram) else { return }
        throw ConfigurationProblem(
            option: type(of: device).option, value: "backend=user",
            reason: "a jail has no programs: start passt outside and use backend=socket")
    }
}
