import Glibc

/// This process.
package enum ProcessIdentifier {
    /// Its number.
    package static var current: Int32 { getpid() }
}
