import CLibFuzzer
import Foundation

/// One program for all fuzzers: `SWIFTLET_FUZZ` names the target, the rest is libFuzzer's. With
/// `seed DIRECTORY` it writes the target's seeds and its dictionary there, with `list` it names all; `crash` is `CrashTrial`'s.
@main
struct SwiftletFuzz {
    private static let targets: [any FuzzTarget.Type] = [
        QCOW2Target.self, VHDTarget.self, VHDXTarget.self, VMDKTarget.self, BlockTarget.self,
        OptionTarget.self, KernelTarget.self, SplitTarget.self, PackedTarget.self, MMIOTarget.self,
        PCITarget.self, PlatformTarget.self, SwitchTarget.self, VsockTarget.self,
        NetworkTarget.self, JSONTarget.self,
        HTTPTarget.self,
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
        if try crash(Array(words)) { return }
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

    /// Runs the crash tests where the words ask for them; `CrashTrial` says which.
    private static func crash(_ words: [String]) throws -> Bool {
        let seed = words.last.flatMap { UInt64($0) } ?? 0
        if words.first == "crash", words.count > 1, let kills = Int(words[1]) {
            do {
                try CrashTrial.run(kills: kills, seed: words.count > 2 ? seed : 0)
            } catch {
                print("crash: \(error)")
                exit(1)
            }
            return true
        }
        guard words.first == "crash-writer", words.count == 4 else { return false }
        try CrashTrial.write(format: words[1], path: words[2], seed: seed)
        return true
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
