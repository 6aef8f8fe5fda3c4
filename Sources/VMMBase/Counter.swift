import Synchronization

/// A number that one thread writes and any thread reads: no read-modify-write, and no lock.
package struct Counter: ~Copyable, Sendable {
    private let value: Atomic<UInt64>

    package init(_ start: UInt64 = 0) { value = Atomic(start) }

    package var current: UInt64 { value.load(ordering: .relaxed) }

    package func add(_ amount: UInt64 = 1) { set(current &+ amount) }

    package func set(_ new: UInt64) { value.store(new, ordering: .relaxed) }
}
