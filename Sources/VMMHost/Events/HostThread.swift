import CVMMLinux
import Glibc
import Synchronization

/// One operating-system thread. Swift's concurrency runtime is not used in the monitor: its first
/// task costs 5 ms and four threads (DESIGN section 1).
package final class HostThread: @unchecked Sendable {
    // SAFETY (@unchecked Sendable): `handle` is written before any other thread sees the object
    // and read by `join` alone.
    private var handle = pthread_t()
    private let joined = Atomic<Bool>(false)

    private final class Start {
        let name: String
        let role: ThreadRole
        let hasOwnCore: Bool
        let body: @Sendable () -> Void

        init(
            name: String, role: ThreadRole, hasOwnCore: Bool, body: @escaping @Sendable () -> Void
        ) {
            self.name = name
            self.role = role
            self.hasOwnCore = hasOwnCore
            self.body = body
        }
    }

    /// Starts the thread, which confines itself by its role before it calls `body`. `name` shows in
    /// `ps` and the log, cut to 15 bytes by the kernel. With `hasOwnCore` no other thread runs on
    /// the same core at the same time, where the kernel can see to it.
    package init(
        name: String, role: ThreadRole, hasOwnCore: Bool = false,
        body: @escaping @Sendable () -> Void
    ) throws(HostError) {
        var attributes = pthread_attr_t()
        unsafe pthread_attr_init(&attributes)
        // 256 KiB: our deepest stack is a few KiB, and only touched pages count.
        unsafe pthread_attr_setstacksize(&attributes, 256 << 10)
        defer { unsafe pthread_attr_destroy(&attributes) }
        let start = unsafe Unmanaged.passRetained(
            Start(name: name, role: role, hasOwnCore: hasOwnCore, body: body))
        let code = unsafe pthread_create(
            &handle, &attributes,
            { argument in
                // SAFETY: the argument is the retained Start that init passed, taken back once.
                guard let argument = unsafe argument else { return nil }
                let start = unsafe Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                unsafe _ = vmm_set_thread_name(start.name)
                if start.hasOwnCore { Privileges.claimCores(forProcess: false) }
                Confinement.apply(start.role)
                start.body()
                return nil
            }, start.toOpaque())
        if code != 0 {
            unsafe start.release()
            throw HostError("start a thread", name, code: code)
        }
    }

    /// How many CPUs this process may run on.
    package static var processorCount: Int {
        max(1, Int(vmm_processor_count()))
    }

    /// Waits for the body's end. Later calls return at once.
    package func join() {
        if joined.exchange(true, ordering: .acquiringAndReleasing) { return }
        pthread_join(handle, nil)
    }
}
