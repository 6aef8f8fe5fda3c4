import VMMBase
import VMMHost
import VMMSandbox
import VMMVirtIO

/// `--rng`: a virtio-rng device.
package struct EntropySpec: DeviceSpec, Decodable {
    package static let word = "rng"
    package static let summary = "The source of random numbers for the guest"
    package static var fields: [OptionField] {
        [
            OptionField("src", "<file>", "where random bytes come from", default: "/dev/urandom"),
            OptionField("id", "<name>", "the device's name", default: "__rng"),
        ] + PlaceOptions.fields
    }
    package static let standard: EntropySpec? = EntropySpec()

    package static var sandbox: SandboxNeeds { .streams }

    package let source: String?
    package let id: String?
    package let place: PlaceOptions

    package var files: [SandboxFile] { source.map { [SandboxFile($0, .read)] } ?? [] }

    private enum CodingKeys: String, CodingKey {
        case source = "src"
        case id
    }

    private init() {
        source = nil
        id = nil
        place = PlaceOptions()
    }

    package init(from decoder: any Decoder) throws {
        let keys = try decoder.container(keyedBy: CodingKeys.self)
        source = try keys.decodeIfPresent(String.self, forKey: .source)
        id = try keys.decodeIfPresent(String.self, forKey: .id)
        place = try PlaceOptions(from: decoder)
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
