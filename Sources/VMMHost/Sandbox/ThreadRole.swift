/// What a thread is there for, by which its confinement is chosen.
package enum ThreadRole: Int, CaseIterable, Sendable {
    /// The main thread, which builds machines and serves the control loop.
    case control
    /// A vCPU.
    case processor
    /// The loop of all devices, or of some queues of one.
    case device
    /// A disk's slow work.
    case disk
    /// Reads a kernel into guest memory.
    case loader
    /// Serves the API.
    case api
    /// Does for the main thread what may take long, such as opening a device.
    case errand
    /// A tool's or a test's, which is never confined.
    case tool
}
