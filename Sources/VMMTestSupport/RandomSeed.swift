import FoundationEssentials

/// The seed of a test that does things at random. The test prints it; SWIFTLET_SEED gives it back.
package enum RandomSeed {
    package static func make() -> UInt64 {
        ProcessInfo.processInfo.environment["SWIFTLET_SEED"].flatMap { UInt64($0) }
            ?? .random(in: .min ... .max)
    }
}
