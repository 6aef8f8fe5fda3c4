import CVMMLinux
import Glibc

/// What kind of file a descriptor stands for and how large it is.
extension FileDescriptor {
    package enum Kind: Equatable, Sendable {
        case regular, directory, blockDevice, characterDevice, symbolicLink, other
    }

    package struct Metadata: Equatable, Sendable {
        package let kind: Kind
        /// Size in bytes; of a block device, its capacity.
        package let byteCount: UInt64
        /// The room that it takes on the disk, in bytes.
        package let allocatedByteCount: UInt64
        /// Device and inode numbers: together they name one file on this host.
        package let device: UInt64
        package let inode: UInt64
        /// The device number that a block or character device stands for.
        package let rawDevice: UInt64
    }

    /// What it stands for, also of one that is open for its path alone (O_PATH).
    package func kind() throws(HostError) -> Kind { Self.kind(try status()) }

    private func status() throws(HostError) -> stat {
        var status = stat()
        guard unsafe vmm_fstat(rawValue, &status) == 0 else { throw .last("examine") }
        return status
    }

    private static func kind(_ status: stat) -> Kind {
        switch status.st_mode & S_IFMT {
        case S_IFREG: .regular
        case S_IFDIR: .directory
        case S_IFBLK: .blockDevice
        case S_IFCHR: .characterDevice
        case S_IFLNK: .symbolicLink
        default: .other
        }
    }

    package func metadata() throws(HostError) -> Metadata {
        let status = try status()
        let kind = Self.kind(status)
        var size = UInt64(clamping: status.st_size)
        if kind == .blockDevice, ioctl(VMM_BLKGETSIZE64, with: &size) != 0 {
            throw .last("read the size of a block device")
        }
        return Metadata(
            kind: kind, byteCount: size,
            allocatedByteCount: UInt64(clamping: status.st_blocks) * 512,
            device: UInt64(status.st_dev), inode: UInt64(status.st_ino),
            rawDevice: UInt64(status.st_rdev))
    }

    /// The logical sector size of a block device in bytes; 512 for anything else.
    package var logicalSectorSize: UInt32 {
        var size: Int32 = 0
        return ioctl(VMM_BLKSSZGET, with: &size) == 0 ? UInt32(clamping: size) : 512
    }

    /// The physical sector size of a block device in bytes; 512 for anything else.
    package var physicalSectorSize: UInt32 {
        var size: UInt32 = 0
        return ioctl(VMM_BLKPBSZGET, with: &size) == 0 ? size : 512
    }

    /// What direct I/O on the file must be aligned to, in bytes, as far as the kernel tells
    /// (statx(2), STATX_DIOALIGN, since 6.1); else a page, which suits every device.
    package var directAlignment: Int {
        let reported = vmm_direct_alignment(rawValue)
        return reported > 0 ? Int(reported) : 4096
    }

    /// Takes an open-file-description lock on the first `count` bytes, 0 being the whole file, so
    /// that two monitors never write one image. False when somebody else holds a conflicting lock.
    package func lock(exclusive: Bool, count: UInt64 = 0) throws(HostError) -> Bool {
        var request = flock()
        request.l_type = Int16(exclusive ? F_WRLCK : F_RDLCK)
        request.l_whence = Int16(SEEK_SET)
        request.l_len = off_t(clamping: count)
        let result = unsafe vmm_fcntl_lock(rawValue, openFileLockCommand, &request)
        if result == 0 { return true }
        if errno == EAGAIN || errno == EACCES { return false }
        throw .last("lock")
    }
}

/// F_OFD_SETLK (fcntl(2)); hidden from Swift behind a feature macro.
private let openFileLockCommand: Int32 = 37
