import Glibc

extension [UInt8] {
    /// Moves the bytes of `range` to where `start` is; the two may overlap, and both lie inside.
    package mutating func moveBytes(_ range: Range<Int>, to start: Int) {
        precondition(
            range.lowerBound >= 0 && range.upperBound <= count && start >= 0
                && start <= count - range.count, "bytes outside of the array")
        // SAFETY: source and destination lie inside the buffer.
        unsafe withUnsafeMutableBytes { buffer in
            guard let base = buffer.baseAddress else { return }
            unsafe _ = memmove(base + start, base + range.lowerBound, range.count)
        }
    }
}
