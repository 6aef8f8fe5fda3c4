import CVMMLinux

/// Unpacks what disk images keep packed. Memory is bounded by the library's fixed state: output
/// goes nowhere but into the caller's span, whatever the input claims.
package enum Inflater {
    /// Unpacks a raw deflate stream with a window of 4 KiB; what follows the stream is ignored.
    /// Returns how many bytes came, nil when the stream is damaged, cut short or larger than
    /// `output`.
    package static func inflateRaw(
        _ input: Span<UInt8>, into output: inout MutableSpan<UInt8>
    ) -> Int? {
        // SAFETY: a zeroed z_stream is what inflateInit2_ asks for.
        var stream = unsafe z_stream()
        // SAFETY: the stream lives on this frame; the version and the size are the header's own.
        guard
            unsafe inflateInit2_(
                &stream, -12, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK
        else { return nil }
        // SAFETY: initialised above, and ended once.
        defer { unsafe _ = inflateEnd(&stream) }
        // SAFETY: both spans outlive the call, and zlib keeps to the counts beside the pointers;
        // it never writes through next_in.
        let result = unsafe input.withUnsafeBufferPointer { source in
            unsafe output.withUnsafeMutableBufferPointer { target in
                unsafe stream.next_in = UnsafeMutablePointer(mutating: source.baseAddress)
                unsafe stream.avail_in = UInt32(clamping: source.count)
                unsafe stream.next_out = target.baseAddress
                unsafe stream.avail_out = UInt32(clamping: target.count)
                return unsafe inflate(&stream, Z_FINISH)
            }
        }
        let produced = output.count - Int(unsafe stream.avail_out)
        // A full output without the stream's end mark is what some writers leave.
        let isComplete =
            result == Z_STREAM_END || (result == Z_BUF_ERROR && produced == output.count)
        return isComplete ? produced : nil
    }

    /// Packs `input` as `inflateRaw` reads it; nil when it does not fit into `output`.
    package static func deflateRaw(
        _ input: Span<UInt8>, into output: inout MutableSpan<UInt8>
    ) -> Int? {
        // SAFETY: a zeroed z_stream is what deflateInit2_ asks for.
        var stream = unsafe z_stream()
        // SAFETY: the stream lives on this frame; the version and the size are the header's own.
        guard
            unsafe deflateInit2_(
                &stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY,
                ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK
        else { return nil }
        // SAFETY: initialised above, and ended once.
        defer { unsafe _ = deflateEnd(&stream) }
        // SAFETY: as for inflate.
        let result = unsafe input.withUnsafeBufferPointer { source in
            unsafe output.withUnsafeMutableBufferPointer { target in
                unsafe stream.next_in = UnsafeMutablePointer(mutating: source.baseAddress)
                unsafe stream.avail_in = UInt32(clamping: source.count)
                unsafe stream.next_out = target.baseAddress
                unsafe stream.avail_out = UInt32(clamping: target.count)
                return unsafe deflate(&stream, Z_FINISH)
            }
        }
        return result == Z_STREAM_END ? output.count - Int(unsafe stream.avail_out) : nil
    }

    /// Unpacks the zstd frame that `input` begins with; what follows it is ignored. Returns as
    /// `inflateRaw`. In one step, so that a frame cannot ask for a window of its own choice.
    package static func inflateZstandard(
        _ input: Span<UInt8>, into output: inout MutableSpan<UInt8>
    ) -> Int? {
        // SAFETY: both spans outlive the calls, which keep to the counts beside the pointers.
        unsafe input.withUnsafeBytes { source in
            unsafe output.withUnsafeMutableBytes { target in
                let count = unsafe ZSTD_findFrameCompressedSize(source.baseAddress, source.count)
                guard ZSTD_isError(count) == 0, count <= source.count else { return nil }
                let produced = unsafe ZSTD_decompress(
                    target.baseAddress, target.count, source.baseAddress, count)
                return ZSTD_isError(produced) == 0 ? produced : nil
            }
        }
    }

    /// Packs `input` as `inflateZstandard` reads it; nil when it does not fit into `output`.
    package static func deflateZstandard(
        _ input: Span<UInt8>, into output: inout MutableSpan<UInt8>
    ) -> Int? {
        // SAFETY: both spans outlive the call, which keeps to the counts beside the pointers.
        unsafe input.withUnsafeBytes { source in
            unsafe output.withUnsafeMutableBytes { target in
                let count = unsafe ZSTD_compress(
                    target.baseAddress, target.count, source.baseAddress, source.count,
                    ZSTD_CLEVEL_DEFAULT)
                return ZSTD_isError(count) == 0 ? count : nil
            }
        }
    }
}
