import CVMMLinux
import Glibc
import VMMBase

/// Bytes that the host owns, in and out of a descriptor.
extension FileDescriptor {
    /// What a non-blocking transfer did.
    package enum Transfer: Equatable, Sendable {
        case moved(Int)
        case wouldBlock
        case endOfFile
        case failed(Int32)
    }

    /// Reads up to `limit` bytes and appends them to `bytes`.
    package func read(into bytes: inout [UInt8], limit: Int) -> Transfer {
        let start = bytes.count
        bytes.append(contentsOf: repeatElement(0, count: limit))
        // SAFETY: the buffer holds `limit` bytes from `start` on.
        let moved = unsafe bytes.withUnsafeMutableBytes { buffer in
            retryingInterrupts {
                unsafe CVMMLinux.read(rawValue, buffer.baseAddress?.advanced(by: start), limit)
            }
        }
        let code = errno
        bytes.removeLast(limit - max(0, moved))
        return Self.transfer(moved, code)
    }

    /// Writes `bytes` from `offset` on, as far as the descriptor takes them.
    package func write(_ bytes: [UInt8], from offset: Int = 0) -> Transfer {
        guard offset < bytes.count else { return .moved(0) }
        // SAFETY: the range from `offset` to the end lies inside the buffer.
        let moved = unsafe bytes.withUnsafeBytes { buffer in
            retryingInterrupts {
                unsafe CVMMLinux.write(
                    rawValue, buffer.baseAddress?.advanced(by: offset), buffer.count - offset)
            }
        }
        let code = errno
        return moved == 0 ? .wouldBlock : Self.transfer(moved, code)
    }

    /// Writes all of `text`; for logs and error messages, which may block.
    package func writeAll(_ text: String) {
        let bytes = Array(text.utf8)
        var offset = 0
        while offset < bytes.count, case .moved(let count) = write(bytes, from: offset) {
            offset += count
        }
    }

    /// Exactly `count` bytes at `offset` of a file.
    package func read(at offset: UInt64, count: Int) throws(HostError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            // SAFETY: the buffer holds `count` bytes, of which `done` are already filled.
            let moved = unsafe bytes.withUnsafeMutableBytes { buffer in
                retryingInterrupts {
                    unsafe pread(
                        rawValue, buffer.baseAddress?.advanced(by: done), count - done,
                        off_t(clamping: offset) + off_t(done))
                }
            }
            guard moved >= 0 else { throw .last("read") }
            guard moved > 0 else { throw HostError("read past the end", code: EIO) }
            done += moved
        }
        return bytes
    }

    static func transfer(_ moved: Int, _ code: Int32) -> Transfer {
        if moved > 0 { return .moved(moved) }
        if moved == 0 { return .endOfFile }
        return code == EAGAIN ? .wouldBlock : .failed(code)
    }
}
