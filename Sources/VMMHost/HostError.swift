import CVMMLinux
import Glibc

/// A system call that failed, with what it was applied to.
package struct HostError: Error, Sendable {
    /// What was tried, as a user would say it: "open", "create a KVM virtual machine".
    package let operation: String
    /// What it was tried on: a path or an interface name; empty where the operation says it.
    package let subject: String
    /// The `errno` of the call.
    package let code: Int32

    package init(_ operation: String, _ subject: String = "", code: Int32) {
        self.operation = operation
        self.subject = subject
        self.code = code
    }

    /// Captures the calling thread's `errno`; call it right after the failed call.
    package static func last(_ operation: String, _ subject: String = "") -> HostError {
        HostError(operation, subject, code: errno)
    }

    /// The caller lacks a right.
    package var isPermission: Bool { code == EPERM || code == EACCES }

    /// The kernel finds that what was asked for does not fit what there is.
    package var isMismatch: Bool { code == EINVAL }

    /// Nothing has this name, or nobody listens there: what a peer that is not up looks like.
    package var isAbsence: Bool { code == ENOENT || code == ECONNREFUSED }

    /// It would have to wait: of a connection, too many clients wait to be accepted.
    package var wouldBlock: Bool { code == EAGAIN }

    /// The file cannot do this at all: ask it in another way.
    package var isUnsupported: Bool { Self.isUnsupported(code) }
    package static func isUnsupported(_ code: Int32) -> Bool {
        code == EOPNOTSUPP || code == ENOSYS || code == ENOTTY
    }
    /// A file that cannot zero or discard this range, or not at all: EINVAL is what block devices
    /// say of a range that is no multiple of their blocks.
    package static func refusesRange(_ code: Int32) -> Bool {
        isUnsupported(code) || code == EINVAL
    }
    /// EIO, for failures that no system call reported.
    package static let ioCode: Int32 = EIO

    /// The kernel's own words for the code.
    package var reason: String {
        // SAFETY: strerror returns a valid NUL-terminated string for every code; it is copied.
        unsafe String(cString: strerror(code))
    }
}

extension HostError: CustomStringConvertible {
    package var description: String {
        let target = subject.isEmpty ? "" : " '\(subject)'"
        return "cannot \(operation)\(target): \(reason)"
    }
}

/// Calls `body` until it does anything but fail with EINTR.
@discardableResult
func retryingInterrupts<Value: SignedInteger>(_ body: () -> Value) -> Value {
    while true {
        let result = body()
        if result != -1 || errno != EINTR { return result }
    }
}
