/// Raises event counters together with a thread's other work: not at once, but before the thread
/// waits again. One thread.
package protocol EventSink: AnyObject {
    /// `owner` keeps `descriptor` open, and is held until the kernel has been told: the number
    /// would be another file's by then.
    func raise(_ descriptor: Int32, of owner: AnyObject)
}
