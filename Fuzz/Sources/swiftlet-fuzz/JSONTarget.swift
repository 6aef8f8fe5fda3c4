import VMMBase
import VMMMachine

/// The input is a text. What is accepted must be the same when it is written and read again, and
/// so must the machine that it describes.
enum JSONTarget: FuzzTarget {
    static let name = "json"

    static let words =
        [
            "{", "}", "[", "]", ":", ",", "\"", "\\u", "\\ud800\\udc00", "null", "true", "1e9",
            "-0",
            "18446744073709551616", "\"path\":", "\"disks\":[",
        ].map { Array($0.utf8) }

    static func seeds() -> [[UInt8]] {
        [
            "{\"payload\":{\"kernel\":\"/k\"},\"cpus\":{\"boot_vcpus\":1,\"max_vcpus\":2}}",
            "{\"payload\":{},\"disks\":[{\"path\":\"/d\",\"num_queues\":2,\"queue_affinity\":"
                + "[{\"queue_index\":0,\"host_cpus\":[1]}],\"rate_limiter_config\":{\"ops\":"
                + "{\"size\":1,\"refill_time\":2}}}],\"console\":{\"mode\":\"File\",\"file\":\"/c\"},"
                + "\"net\":[{\"tap\":\"t\",\"forward\":[\"tcp:1:2\"]}],\"rng\":{\"src\":\"/r\"}}",
            "[null,true,false,-1.5e-3,\"\\\"\\\\\\u00e9\\ud83d\\ude00\",[],{}]",
        ].map { Array($0.utf8) }
    }

    private struct Shape: Decodable {
        let payload: [String: String?]?
        let cpus: [String: UInt32]?
        let disks: [[String: Bool]]?
    }

    static func run(_ input: FuzzInput) {
        var input = input
        do {
            let value = try JSONParser.parse(input.takeAll())
            let again = try? JSONParser.parse(value.text())
            precondition(again == value, "JSON changed on its way")
            _ = try? JSONDecoder.decode(Shape.self, from: value)
            let told = try MachineConfiguration(json: value).json
            let second = try? MachineConfiguration(json: told).json
            precondition(second == told, "a machine changed on its way")
        } catch let error as ConfigurationError {
            // The sentences for the user are made of the same bytes.
            for problem in error.problems { _ = problem.jsonDescription }
        } catch {
            _ = "\(error)"
        }
    }
}
