import CVMMLinux
import Glibc

/// Descriptors that travel with the bytes of a Unix stream (SCM_RIGHTS, unix(7)). No call waits.
extension FileDescriptor {
    /// The most that the kernel takes with one message (SCM_MAX_FD).
    package static let rightsLimit = 253
    /// A header of length, level and type (cmsg(3)), and a number for each descriptor.
    private static let headerByteCount = 16
    private static let controlWords = (headerByteCount + 4 * rightsLimit + 7) / 8

    /// Appends up to `limit` bytes to `bytes`, and to `descriptors` those that came with them,
    /// which are ours from then on.
    package func receive(
        into bytes: inout [UInt8], limit: Int, descriptors: inout [FileDescriptor]
    ) -> Transfer {
        let start = bytes.count
        bytes.append(contentsOf: repeatElement(0, count: limit))
        // Of words, because the kernel wants it aligned.
        var control = [UInt64](repeating: 0, count: Self.controlWords)
        var controlByteCount = 0
        // SAFETY: the buffer holds `limit` bytes from `start` on, and the control words as many
        // bytes as the message says; both live for the length of the call.
        let moved = unsafe bytes.withUnsafeMutableBytes { buffer in
            unsafe control.withUnsafeMutableBytes { control in
                var part = unsafe iovec(
                    iov_base: buffer.baseAddress?.advanced(by: start), iov_len: limit)
                var message = unsafe msghdr()
                unsafe message.msg_control = control.baseAddress
                unsafe message.msg_controllen = control.count
                let moved = unsafe move(&message, &part, flags: Int32(MSG_CMSG_CLOEXEC)) {
                    unsafe recvmsg($0, &$1, $2)
                }
                controlByteCount = unsafe Int(clamping: message.msg_controllen)
                return moved
            }
        }
        let code = errno
        bytes.removeLast(limit - max(0, moved))
        if moved >= 0 { descriptors += Self.descriptors(in: control, controlByteCount) }
        return Self.transfer(moved, code)
    }

    /// Moves the part's bytes by a message, with what control data the message has already.
    private func move(
        _ message: inout msghdr, _ part: inout iovec, flags: Int32,
        _ call: (Int32, inout msghdr, Int32) -> Int
    ) -> Int {
        // SAFETY: the part outlives the call, and nobody reads the pointer to it later.
        unsafe withUnsafeMutablePointer(to: &part) { part in
            unsafe message.msg_iov = part
            unsafe message.msg_iovlen = 1
            return retryingInterrupts {
                unsafe call(rawValue, &message, Int32(MSG_DONTWAIT) | flags)
            }
        }
    }

    /// Takes the descriptors out of what the kernel wrote.
    private static func descriptors(in control: [UInt64], _ byteCount: Int) -> [FileDescriptor] {
        var found: [FileDescriptor] = []
        var offset = 0
        while offset + headerByteCount <= byteCount {
            let end = offset + Int(clamping: control[offset / 8])
            let kind = control[offset / 8 + 1]
            let isRights =
                kind & 0xffff_ffff == UInt64(SOL_SOCKET) && kind >> 32 == rightsType
            for place in stride(from: offset + headerByteCount, to: min(end, byteCount), by: 4)
            where isRights {
                let number = control[place / 8] >> UInt64(place % 8 * 8)
                found.append(FileDescriptor(owning: Int32(truncatingIfNeeded: number)))
            }
            offset = max(end + 7 & ~7, offset + headerByteCount)
        }
        return found
    }

    /// Sends bytes, one at least, as far as the socket takes them, and these descriptors with the
    /// first of them: when any were taken, all of the descriptors were.
    package func send(
        _ bytes: [UInt8], from offset: Int, with descriptors: [FileDescriptor]
    ) -> Transfer {
        let used = Self.headerByteCount + 4 * descriptors.count
        var control = [UInt64](repeating: 0, count: (used + 7) / 8)
        control[0] = UInt64(used)
        control[1] = UInt64(SOL_SOCKET) | Self.rightsType << 32
        for (index, descriptor) in descriptors.enumerated() {
            let place = Self.headerByteCount + 4 * index
            let number = UInt64(UInt32(bitPattern: descriptor.rawValue))
            control[place / 8] |= number << UInt64(place % 8 * 8)
        }
        var bytes = bytes
        // SAFETY: both buffers live for the length of the call, and the lengths are theirs.
        let moved = unsafe bytes.withUnsafeMutableBytes { buffer in
            unsafe control.withUnsafeMutableBytes { control in
                var part = unsafe iovec(
                    iov_base: buffer.baseAddress?.advanced(by: offset),
                    iov_len: buffer.count - offset)
                var message = unsafe msghdr()
                if !descriptors.isEmpty {
                    unsafe message.msg_control = control.baseAddress
                    unsafe message.msg_controllen = used
                }
                return unsafe move(&message, &part, flags: Int32(MSG_NOSIGNAL)) {
                    unsafe sendmsg($0, &$1, $2)
                }
            }
        }
        return Self.transfer(moved, errno)
    }

    /// SCM_RIGHTS, an enumerator that glibc gives no macro of the same type.
    private static let rightsType: UInt64 = 1
}
