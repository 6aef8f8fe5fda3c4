import CVMMLinux
import Glibc

/// Kinds of namespaces (namespaces(7)): what a process may have for its own.
package struct Namespaces: OptionSet, Sendable {
    package let rawValue: Int32
    package init(rawValue: Int32) { self.rawValue = rawValue }

    /// What is mounted where.
    package static let mounts = Namespaces(rawValue: 0x0002_0000)
    /// The processes that can be seen. The caller's next child is the first in it.
    package static let processes = Namespaces(rawValue: 0x2000_0000)
    package static let networks = Namespaces(rawValue: 0x4000_0000)
    /// Users and what they may do, in namespaces that are made with or after this one.
    package static let users = Namespaces(rawValue: 0x1000_0000)
    /// System V's and POSIX's queues and shared memory.
    package static let messages = Namespaces(rawValue: 0x0800_0000)
    package static let hostName = Namespaces(rawValue: 0x0400_0000)

    /// Has the calling process go on in new ones of its own. It must have one thread.
    package static func make(_ kinds: Namespaces) throws(HostError) {
        guard vmm_unshare(kinds.rawValue) == 0 else { throw .last("make namespaces") }
    }

    /// Has the calling process go on in the one of this kind that the file stands for.
    package static func enter(_ path: String, _ kind: Namespaces) throws(HostError) {
        let file = try FileDescriptor.open(path, .readOnly)
        guard vmm_enter_namespace(file.rawValue, kind.rawValue) == 0 else {
            throw .last("enter the namespace", path)
        }
    }

    /// Makes a namespace of users, and in it the caller into this one: without rights this is the
    /// one user that can be in it (user_namespaces(7)).
    package static func makeUsers(user: UInt32, group: UInt32, with others: Namespaces)
        throws(HostError)
    {
        let (ownUser, ownGroup) = (geteuid(), getegid())
        try make(others.union(.users))
        try write("deny", to: "/proc/self/setgroups")
        try write("\(user) \(ownUser) 1", to: "/proc/self/uid_map")
        try write("\(group) \(ownGroup) 1", to: "/proc/self/gid_map")
    }

    /// Fails as `makeUsers` would. A child tries it; the process must have one thread.
    package static func tryUsers() throws(HostError) {
        guard case .parent(let child) = try SoleThread.fork() else {
            do throws(HostError) {
                try makeUsers(user: 0, group: 0, with: [.mounts])
                _exit(0)
            } catch {
                _exit(error.code)
            }
        }
        let code = SoleThread.status(of: child)
        guard code == 0 else { throw HostError("make namespaces", code: code) }
    }

    /// In one call, as the kernel wants it.
    private static func write(_ text: String, to path: String) throws(HostError) {
        try FileDescriptor.open(path, .writeOnly).writeWhole(text, path)
    }
}

extension FileDescriptor {
    /// Writes a short text to one of the kernel's own files, which take it in one call or refuse
    /// it. `path` is for the message.
    package func writeWhole(_ text: String, _ path: String) throws(HostError) {
        let bytes = Array(text.utf8)
        switch write(bytes) {
        case .moved(bytes.count): return
        case .failed(let code): throw HostError("write '\(text)' to", path, code: code)
        case .moved, .wouldBlock, .endOfFile:
            throw HostError("write '\(text)' to", path, code: EIO)
        }
    }
}
