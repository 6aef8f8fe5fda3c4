import CVMMLinux
import Glibc

/// The descriptors 0 to 2.
package enum StandardStreams {
    /// Has /dev/null stand for those that whoever started the process closed: the next file to be
    /// opened would be taken for one of them. Before anything is opened.
    package static func fill() {
        for number in Int32(0)...2 where vmm_fcntl(number, F_GETFD, 0) < 0 {
            // The lowest number that is free, and so this one.
            unsafe _ = vmm_open("/dev/null", O_RDWR, 0)
        }
    }
}
