import Synchronization
import VMMDevices
import VMMHost
import VMMSandbox

/// Work that may take its time, such as writing or opening files, on a thread of its own: the
/// control loop goes on meanwhile.
final class Errand: Sendable {
    private let wanted: Wanted
    private let thread: HostThread
    /// It looks again and again at whether it is still wanted.
    private let isInterruptible: Bool

    /// Whether the work is to go on.
    final class Wanted: Sendable {
        private let flag = Atomic<Bool>(true)
        var value: Bool { flag.load(ordering: .relaxed) }
        fileprivate func end() { flag.store(false, ordering: .relaxed) }
    }

    /// Begins the work.
    init(
        isInterruptible: Bool, _ work: @escaping @Sendable (Wanted) -> Void
    ) throws(HostError) {
        self.isInterruptible = isInterruptible
        let wanted = Wanted()
        self.wanted = wanted
        thread = try HostThread(name: "errand", role: .errand) { work(wanted) }
    }

    /// What is not done yet need not be done.
    func cancel() { wanted.end() }

    /// Returns when the work has ended.
    func join() { thread.join() }

    /// Nobody will take the result. Waits only for work that ends at once then.
    func abandon() {
        cancel()
        if isInterruptible { join() }
    }
}

extension Monitor {
    /// Has `work` done aside. It returns what the control loop is to do afterwards; what is asked
    /// for in between waits for that.
    func begin(
        isInterruptible: Bool,
        _ work: @escaping @Sendable (Errand.Wanted) -> @Sendable (Monitor) -> Void
    ) throws(HostError) {
        precondition(errand == nil, "requests wait for an errand's end")
        errand = try Errand(isInterruptible: isInterruptible) { [loop, weakSelf] wanted in
            let ending = work(wanted)
            loop.post { weakSelf.withValue { $0.monitor?.end(ending) } }
        }
    }

    private func end(_ ending: @Sendable (Monitor) -> Void) {
        errand?.join()
        errand = nil
        ending(self)
        publish()
        while errand == nil, !waiting.isEmpty {
            let next = waiting.removeFirst()
            next()
        }
    }

    // MARK: devices that come

    /// Opens the device aside, so that the guest's other devices are served meanwhile, and plugs it
    /// in. Of a machine that is not booted, only the configuration changes.
    func addDevice(
        _ addition: DeviceAddition, _ request: MachineRequest,
        _ reply: @escaping MachineControl.Reply
    ) throws {
        guard var changed = configuration else { return }
        try changed.add(addition)
        if let added = changed.devices.last { try sandbox?.admit(added) }
        guard let open = try booted?.opener(ofNewIn: &changed) else {
            configuration = changed
            publish()
            return reply(.success(nil))
        }
        try begin(isInterruptible: false) { [changed] _ in
            let opened = Result { try open() }
            return { $0.plug(opened, of: changed, request, reply) }
        }
    }

    private func plug(
        _ opened: Result<OpenedDevice, any Error>, of changed: MachineConfiguration,
        _ request: MachineRequest, _ reply: MachineControl.Reply
    ) {
        do {
            let plugged = try booted?.plug(try opened.get())
            configuration = changed
            publish()
            reply(.success(plugged?.json))
        } catch {
            let explained = changed.devices.last.flatMap { sandbox?.explain(error, $0.files) }
            fail(request, explained ?? error, reply)
        }
    }

    // MARK: core dumps

    /// A guest that runs is paused for as long as it takes.
    func dumpCore(
        to path: String, _ request: MachineRequest, _ reply: @escaping MachineControl.Reply
    ) throws {
        guard let booted else { return }
        let wasRunning = !isPaused
        if wasRunning { try pause() }
        publish()
        events?.tell(.vm, .coredumping)
        do {
            let write = try booted.coreDump()
            try begin(isInterruptible: true) { wanted in
                let result = Result { try write(path) { wanted.value } }
                return { $0.endCoreDump(result, path, resumes: wasRunning, request, reply) }
            }
        } catch {
            if wasRunning { try resume() }
            throw error
        }
    }

    private func endCoreDump(
        _ result: Result<Void, any Error>, _ path: String, resumes: Bool,
        _ request: MachineRequest, _ reply: MachineControl.Reply
    ) {
        do {
            if resumes { try resume() }
            try result.get()
            publish()
            reply(.success(nil))
        } catch {
            fail(request, sandbox?.explain(error, [.made(path)]) ?? error, reply)
        }
    }
}
