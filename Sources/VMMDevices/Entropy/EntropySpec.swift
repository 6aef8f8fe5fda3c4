import VMMBase
import VMMHost
import VMMVirtIO

/// `--rng`: a virtio-rng device.
package struct EntropySpec: DeviceSpec, Decodable {
    package static let word = "rng"
    package static let summary = "The source of random numbers for the guest"
    package static let fields = [
        OptionField("src", "<file>", "where random bytes come from", default: "/dev/urandom"),
        OptionField("id", "<name>", "the device's name", default: "__rng"),
        OptionField(
            "pci_device_id", "<n>", "device number on the PCI bus", default: "the next free"),
    ]
    package static let standard: EntropySpec? = EntropySpec(source: nil, id: nil, pciDevice: nil)

    package let source: String?
    package let id: String?
    package let pciDevice: UInt8?

    private enum CodingKeys: String, CodingKey {
        case source = "src"
        case id
        case pciDevice = "pci_device_id"
    }

    package func build(_ context: DeviceContext) throws -> BuiltDevice {
        let path = source ?? "/dev/urandom"
        do {
            return .virtIO(try VirtIOEntropy(id: context.id, path: path))
        } catch {
            throw problem("src", path, "\(error)")
        }
    }
}
