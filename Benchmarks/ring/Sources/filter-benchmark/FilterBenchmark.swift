import VMMBase
import VMMHost
import VMMSandbox

/// How long it takes to make the filter of each kind of thread, of a machine with all devices
/// there are and an API. Prints one line of JSON: microseconds, and how many instructions.
@main
enum FilterBenchmark {
    private static let rounds = 200

    static func main() {
        let clock = SystemClock()
        var parts: [String] = []
        for role in ThreadRole.allCases where role != .tool {
            var times: [UInt64] = []
            var count = 0
            for _ in 0..<rounds {
                let start = clock.monotonicNanoseconds()
                let rules = ThreadRules(.images + .sockets + .streams, takesRequests: true)
                let program = FilterProgram(rules.rules(of: role), otherwise: .trap).code
                times.append(clock.monotonicNanoseconds() - start)
                count = program.count
            }
            // The first, as a machine has it: nothing is in any cache.
            let first = Double(times[0]) / 1000
            let median = Double(times.sorted()[rounds / 2]) / 1000
            parts.append(
                "\"\(role)\": {\"first_us\": \(first), \"median_us\": \(median), "
                    + "\"instructions\": \(count)}")
        }
        print("{\(parts.joined(separator: ", "))}")
    }
}
