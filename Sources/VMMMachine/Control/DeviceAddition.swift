import VMMBase
import VMMBus
import VMMDevices
import VMMHost

/// A device that is to come, as a request described it: in the shape that it has in a machine's
/// configuration.
package struct DeviceAddition: Sendable {
    /// The request, by which the state decides whether it is for now.
    package let verb: MachineVerb
    let type: any DeviceSpec.Type
    let text: OptionText
    /// What the device is made of, where it came with the request.
    let descriptors: [FileDescriptor]

    /// What it is to do, for the sentence that says that it failed.
    var purpose: String { "add the \(type.word) device" }

    /// Reads a disk.
    package static func disk(
        _ json: JSONValue, _ descriptors: [FileDescriptor]
    ) throws -> DeviceAddition {
        try DeviceAddition(.addDisk, BlockSpec.self, json, descriptors)
    }

    /// Reads a network interface. Descriptors are those of a tap, one for each pair of queues;
    /// numbers in the JSON are of no use then.
    package static func network(
        _ json: JSONValue, _ descriptors: [FileDescriptor]
    ) throws -> DeviceAddition {
        guard !descriptors.isEmpty, case .object(let members) = json else {
            return try DeviceAddition(.addNet, NetworkSpec.self, json, [])
        }
        let rest = JSONValue.object(members.filter { $0.name != "fds" })
        return try DeviceAddition(.addNet, NetworkSpec.self, rest, descriptors)
    }

    /// Reads a socket device.
    package static func vsock(
        _ json: JSONValue, _ descriptors: [FileDescriptor]
    ) throws -> DeviceAddition {
        try DeviceAddition(.addVsock, VsockSpec.self, json, descriptors)
    }

    private init(
        _ verb: MachineVerb, _ type: any DeviceSpec.Type, _ json: JSONValue,
        _ descriptors: [FileDescriptor]
    ) throws {
        self.verb = verb
        self.type = type
        self.descriptors = descriptors
        guard descriptors.isEmpty || type == NetworkSpec.self else {
            throw RequestFailure(.invalid, ["\(verb.rawValue) takes no descriptors"])
        }
        var text = try MachineConfiguration.read(type, json)
        if !descriptors.isEmpty {
            let numbers = descriptors.map { "\($0.rawValue)" }.joined(separator: ",")
            text.setDefault("fd", "[\(numbers)]")
        }
        self.text = text
    }
}

/// A device of a running machine, and where it is.
package struct PluggedDevice: Hashable, Sendable {
    /// Its name.
    package let id: String
    package let address: PCIAddress

    /// As Cloud Hypervisor answers it.
    package var json: JSONValue {
        .object([.init("id", .string(id)), .init("bdf", .string(address.description))])
    }
}
