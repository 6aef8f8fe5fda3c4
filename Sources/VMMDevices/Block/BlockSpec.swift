import VMMBase
import VMMHost
import VMMStorage
import VMMVirtIO

/// `--disk`: a virtio-blk device on a raw image or a block device.
package struct BlockSpec: DeviceSpec, Decodable {
    package static let word = "disk"
    package static let summary = "A disk, from a raw image file or a block device"
    package static let isRepeatable = true
    package static let fields = [
        OptionField("path", "<file>", "the image file or block device"),
        OptionField("readonly", "on|off", "the guest cannot write", default: "off"),
        OptionField(
            "serial", "<text>", "serial number, at most 20 bytes", default: "the file's identity"),
        OptionField("queue_size", "<n>", "requests in a queue, a power of two", default: "128"),
        OptionField("id", "<name>", "the device's name", default: "_disk<n>"),
        OptionField(
            "pci_device_id", "<n>", "device number on the PCI bus", default: "the next free"),
        OptionField(
            "_disable_io_uring", "on|off", "blocking calls, for tests", default: "off",
            isHidden: true),
    ]

    package let path: String
    package let isReadOnly: Bool?
    package let serial: String?
    package let queueSize: UInt16?
    package let id: String?
    package let pciDevice: UInt8?
    package let disablesRing: Bool?

    private enum CodingKeys: String, CodingKey {
        case path
        case isReadOnly = "readonly"
        case serial
        case queueSize = "queue_size"
        case id
        case pciDevice = "pci_device_id"
        case disablesRing = "_disable_io_uring"
    }

    package func problems() -> [ConfigurationProblem] {
        var problems: [ConfigurationProblem] = []
        if let serial, serial.utf8.count > VirtIOBlock.serialByteCount {
            problems.append(problem("serial", serial, "at most 20 bytes"))
        }
        // 1024 is what one preadv takes (IOV_MAX), and a chain has at most this many pieces.
        if let queueSize, queueSize.nonzeroBitCount != 1 || !(4...1024).contains(queueSize) {
            problems.append(
                problem("queue_size", "\(queueSize)", "expected a power of two from 4 to 1024"))
        }
        return problems
    }

    package func build(_ context: DeviceContext) throws -> BuiltDevice {
        let disk: RawDisk
        do throws(RawDisk.OpenError) {
            disk = try RawDisk(path: path, isReadOnly: isReadOnly ?? false)
        } catch {
            throw problem("path", path, error.description)
        }
        return .virtIO(
            VirtIOBlock(
                id: context.id, disk: disk, queueSize: queueSize ?? 128, serial: serial,
                allowsRing: !(disablesRing ?? false)))
    }
}
