import ArgumentParser

/// A size as people write it: `10G`, `512K`, `4096`.
struct ByteSize: ExpressibleByArgument {
    let byteCount: UInt64

    private static let suffixes = ["K", "M", "G", "T", "P", "E"]

    init?(argument: String) {
        var digits = argument.uppercased()[...]
        var shift: UInt64 = 0
        if digits.hasSuffix("B") { digits = digits.dropLast() }
        if let place = Self.suffixes.firstIndex(where: { digits.hasSuffix($0) }) {
            digits = digits.dropLast()
            shift = 10 * UInt64(place + 1)
        }
        guard digits.allSatisfy(\.isNumber), let number = UInt64(digits),
            case let (bytes, overflows) = number.multipliedReportingOverflow(by: 1 << shift),
            !overflows
        else { return nil }
        byteCount = bytes
    }

    /// `byteCount` in the largest unit of which it is at least one.
    static func text(_ byteCount: UInt64) -> String {
        var size = Double(byteCount)
        var unit = "B"
        for suffix in suffixes where size >= 1024 {
            size /= 1024
            unit = suffix + "iB"
        }
        let rounded = (size * 100).rounded() / 100
        return rounded == rounded.rounded() ? "\(Int(rounded)) \(unit)" : "\(rounded) \(unit)"
    }
}
