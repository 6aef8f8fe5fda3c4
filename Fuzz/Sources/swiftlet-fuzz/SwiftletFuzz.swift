import CLibFuzzer
import Foundation

/// One program for all fuzzers: `SWIFTLET_FUZZ` names the target, the rest is libFuzzer's. With
/// `seed DIRECTORY` it writes the target's seeds and its dictionary there, with `list` it names all.
@main
struct SwiftletFuzz {
    private static let targets: [any FuzzTarget.Type] = [
        QCOW2Target.self, VHDTarget.self, VHDXTarget.self, VMDKTarget.self, BlockTarget.self,
        OptionTarget.self, KernelTarget.self,
    ]

    private static let target = targets.first {
        $0.name == ProcessInfo.processInfo.environment["SWIFTLET_FUZZ"]
    }

    static func main() throws {
        let words = CommandLine.arguments.dropFirst()
        if words.first == "list" {
            for target in targets { print(target.name) }
            return
        }
        guard let target else {
            print("SWIFTLET_FUZZ must name one of: \(targets.map { $0.name })")
            exit(2)
        }
        if words.first == "seed", let directory = words.last {
            try seed(target, URL(filePath: directory))
            return
        }
        var count = CommandLine.argc
        var arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? =
            unsafe CommandLine.unsafeArgv
        // SAFETY: libFuzzer calls with `count` readable bytes, which are copied at once.
        let status = unsafe LLVMFuzzerRunDriver(&count, &arguments) { bytes, count in
            unsafe SwiftletFuzz.target?.run(
                FuzzInput(Array(UnsafeBufferPointer(start: bytes, count: count))))
            return 0
        }
        exit(status)
    }

    private static func seed(_ target: any FuzzTarget.Type, _ directory: URL) throws {
        for (index, seed) in try target.seeds().enumerated() {
            try Data(seed).write(to: directory.appending(path: "seed-\(index)"))
        }
        let lines = target.words.map { word in
            let bytes = word.map { byte in
                let digits = String(byte, radix: 16)
                return "\\x" + (digits.count < 2 ? "0" : "") + digits
            }
            return "\"\(bytes.joined())\"\n"
        }
        try Data(lines.joined().utf8).write(to: directory.appending(path: "dictionary"))
    }
}
