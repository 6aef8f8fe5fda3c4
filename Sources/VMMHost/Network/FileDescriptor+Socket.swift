import CVMMLinux
import Glibc

/// Connected sockets. No call waits, whatever the flags of the socket are, and a peer that left is
/// an error and no signal.
extension FileDescriptor {
    /// The ways of a stream that can be shut.
    package struct Directions: OptionSet, Sendable {
        package let rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }

        package static let receiving = Directions(rawValue: 1)
        package static let sending = Directions(rawValue: 2)
    }

    private static let sendFlags = Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL)

    /// Sends from guest memory, as much as the socket takes; the vector is not empty.
    package func send(_ vector: GuestVector) -> Transfer {
        var message = unsafe msghdr()
        unsafe message.msg_iov = vector.base
        unsafe message.msg_iovlen = vector.count
        // SAFETY: the vector's slices were checked against guest memory, which it keeps mapped.
        let moved = retryingInterrupts { unsafe sendmsg(rawValue, &message, Self.sendFlags) }
        return Self.transfer(moved, errno)
    }

    /// Pieces that a record can have besides its length, so that their list fits on the stack.
    private static let mostPieces = 63

    /// Sends guest memory behind its length of four bytes, big endian, as far as the socket takes
    /// both. `.wouldBlock` also where the memory is in very many pieces.
    package func sendRecord(_ vector: GuestVector) -> Transfer {
        guard vector.count <= Self.mostPieces else { return .wouldBlock }
        var length = UInt32(clamping: vector.byteCount).bigEndian
        let moved = unsafe Self.withPieces(&length, vector) { message in
            retryingInterrupts { unsafe sendmsg(rawValue, message, Self.sendFlags) }
        }
        return Self.transfer(moved, errno)
    }

    /// Receives a record's length, which the caller has seen by a peek, and what follows it: that
    /// goes to guest memory. How many bytes came is told with the length's four.
    package func receiveRecord(into vector: GuestVector) -> Transfer {
        guard vector.count <= Self.mostPieces else { return .wouldBlock }
        var length: UInt32 = 0
        let moved = unsafe Self.withPieces(&length, vector) { message in
            retryingInterrupts { unsafe recvmsg(rawValue, message, Int32(MSG_DONTWAIT)) }
        }
        return moved == 0 ? .endOfFile : Self.transfer(moved, errno)
    }

    /// How many bytes of a stream can be received now.
    package var readableByteCount: Int {
        var count: Int32 = 0
        return ioctl(VMM_FIONREAD, with: &count) == 0 ? Int(count) : 0
    }

    /// A message of four bytes and guest memory, of `mostPieces` pieces at most.
    private static func withPieces(
        _ length: inout UInt32, _ vector: GuestVector,
        _ body: (UnsafeMutablePointer<msghdr>) -> Int
    ) -> Int {
        // SAFETY: the length outlives the call, as do the vector's slices, which were checked
        // against guest memory; the list has room for all of them.
        unsafe withUnsafeMutableBytes(of: &length) { prefix in
            unsafe withUnsafeTemporaryAllocation(of: iovec.self, capacity: vector.count + 1) {
                pieces in
                unsafe pieces.initializeElement(
                    at: 0, to: iovec(iov_base: prefix.baseAddress, iov_len: prefix.count))
                _ = unsafe pieces.suffix(from: 1).initialize(
                    fromContentsOf: UnsafeBufferPointer(start: vector.base, count: vector.count))
                var message = unsafe msghdr()
                unsafe message.msg_iov = pieces.baseAddress
                unsafe message.msg_iovlen = pieces.count
                return unsafe body(&message)
            }
        }
    }

    /// Appends up to `limit` bytes to `bytes`; with `isPeek` the socket keeps them.
    package func receive(into bytes: inout [UInt8], limit: Int, isPeek: Bool) -> Transfer {
        let start = bytes.count
        bytes.append(contentsOf: repeatElement(0, count: limit))
        let flags = Int32(MSG_DONTWAIT) | (isPeek ? Int32(MSG_PEEK) : 0)
        // SAFETY: the buffer holds `limit` bytes from `start` on.
        let moved = unsafe bytes.withUnsafeMutableBytes { buffer in
            retryingInterrupts {
                unsafe recv(
                    rawValue, buffer.baseAddress?.advanced(by: start), limit, flags)
            }
        }
        let code = errno
        bytes.removeLast(limit - max(0, moved))
        return Self.transfer(moved, code)
    }

    /// Shuts one or both ways: the peer reads the end, or its writes fail.
    package func shutDown(_ directions: Directions) {
        // Fails when the peer has left, and then there is nothing to shut.
        switch directions {
        case .receiving: _ = Glibc.shutdown(rawValue, Int32(SHUT_RD))
        case .sending: _ = Glibc.shutdown(rawValue, Int32(SHUT_WR))
        case [.receiving, .sending]: _ = Glibc.shutdown(rawValue, Int32(SHUT_RDWR))
        default: break
        }
    }

    /// Sends the bytes of `range`, as far as the socket takes them now: `.wouldBlock` when it takes
    /// none. A peer that left is a failure, not a signal.
    package func send(_ bytes: [UInt8], _ range: Range<Int>) -> Transfer {
        precondition(range.upperBound <= bytes.count, "a range outside of the bytes")
        // SAFETY: the range lies inside the buffer.
        let moved = unsafe bytes.withUnsafeBytes { buffer in
            retryingInterrupts {
                unsafe Glibc.send(
                    rawValue, buffer.baseAddress?.advanced(by: range.lowerBound), range.count,
                    Self.sendFlags)
            }
        }
        let code = errno
        return moved == 0 ? .wouldBlock : Self.transfer(moved, code)
    }

    /// Receives into `range` of `bytes`. Of a datagram that is longer, the length is told all the
    /// same and the rest is lost; an empty one looks like the end of a stream.
    package func receive(into bytes: inout [UInt8], _ range: Range<Int>) -> Transfer {
        precondition(range.upperBound <= bytes.count, "a range outside of the bytes")
        let flags = Int32(MSG_DONTWAIT) | Int32(MSG_TRUNC)
        // SAFETY: the range lies inside the buffer.
        let moved = unsafe bytes.withUnsafeMutableBytes { buffer in
            retryingInterrupts {
                unsafe recv(
                    rawValue, buffer.baseAddress?.advanced(by: range.lowerBound), range.count,
                    flags)
            }
        }
        return Self.transfer(moved, errno)
    }

    /// The same of a stream, where MSG_TRUNC would throw the bytes away.
    package func receiveStream(into bytes: inout [UInt8], _ range: Range<Int>) -> Transfer {
        precondition(range.upperBound <= bytes.count, "a range outside of the bytes")
        // SAFETY: the range lies inside the buffer.
        let moved = unsafe bytes.withUnsafeMutableBytes { buffer in
            retryingInterrupts {
                unsafe recv(
                    rawValue, buffer.baseAddress?.advanced(by: range.lowerBound), range.count,
                    Int32(MSG_DONTWAIT))
            }
        }
        return Self.transfer(moved, errno)
    }
}
