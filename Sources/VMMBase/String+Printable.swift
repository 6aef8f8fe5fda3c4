extension String {
    /// For the log and for sentences, of a text that anybody may have written: its first 100
    /// characters, those that are not printable ASCII as question marks.
    package var printable: String {
        let shown = utf8.prefix(100).map { (0x20..<0x7f).contains($0) ? $0 : UInt8(ascii: "?") }
        return String(decoding: shown, as: UTF8.self)
    }
}
