import Foundation

/// Children that see a KVM with less in it than the host's.
enum SystemCallFilter {
    private typealias Prctl = @convention(c) (Int32, UInt, UInt, UInt, UInt) -> Int32

    /// The result of a body that ran on another thread.
    private final class Box<Value>: @unchecked Sendable {
        var result: Result<Value, any Error>?
    }

    /// Runs `body` on a thread whose children are told by KVM_CHECK_EXTENSION that `capability`
    /// is absent.
    static func withoutCapability<Value: Sendable>(
        _ capability: UInt64, _ body: @escaping @Sendable () throws -> Value
    ) throws -> Value {
        let box = Box<Value>()
        let done = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            box.result = Result {
                try install(program(capability))
                return try body()
            }
            done.signal()
        }
        done.wait()
        guard let result = box.result else { throw CocoaError(.featureUnsupported) }
        return try result.get()
    }

    /// A BPF program over `struct seccomp_data`, in the kernel's own words.
    private static func program(_ capability: UInt64) -> [UInt64] {
        func load(_ offset: UInt64) -> UInt64 { 0x20 | offset << 32 }
        func skip(_ ifEqual: UInt64, _ otherwise: UInt64, _ value: UInt64) -> UInt64 {
            0x15 | ifEqual << 16 | otherwise << 24 | value << 32
        }
        func answer(_ action: UInt64) -> UInt64 { 0x06 | action << 32 }
        return [
            load(0), skip(0, 4, 16),  // the call's number: ioctl
            load(24), skip(0, 2, 0xae03),  // the second argument: KVM_CHECK_EXTENSION
            load(32), skip(1, 0, capability),  // the third
            answer(0x7fff_0000),  // allow
            answer(0x0005_0000),  // return 0
        ]
    }

    private static func install(_ program: [UInt64]) throws {
        // prctl has a variable number of arguments, which Swift cannot call by its name.
        guard let symbol = dlsym(nil, "prctl") else { throw CocoaError(.featureUnsupported) }
        let prctl = unsafeBitCast(symbol, to: Prctl.self)
        try program.withUnsafeBytes { code in
            // `struct sock_fprog`: the number of instructions and their address.
            let header = [UInt(program.count), UInt(bitPattern: code.baseAddress)]
            try header.withUnsafeBytes { header in
                // PR_SET_NO_NEW_PRIVS, and PR_SET_SECCOMP with SECCOMP_MODE_FILTER.
                guard prctl(38, 1, 0, 0, 0) == 0,
                    prctl(22, 2, UInt(bitPattern: header.baseAddress), 0, 0) == 0
                else { throw POSIXError(.EPERM) }
            }
        }
    }
}
