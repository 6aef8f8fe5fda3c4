/// What of an argument a rule looks at, and which values it allows.
package struct ArgumentTest: Equatable, Sendable {
    /// How much of the argument the kernel reads: an `int`, or a whole register, whose upper half
    /// must then be zero.
    package enum Width: Sendable {
        case int, register
    }

    /// Which argument, from 0.
    let index: Int
    let width: Width
    /// The bits that count; the others may be anything.
    let mask: UInt32
    var values: [UInt32]

    /// Allows the values of `values` alone.
    package static func oneOf(
        _ values: [UInt32], at index: Int, _ width: Width = .int
    ) -> ArgumentTest {
        ArgumentTest(index: index, width: width, mask: .max, values: values)
    }

    /// Allows no other bits than those of `bits`.
    package static func only(_ bits: UInt32, at index: Int) -> ArgumentTest {
        ArgumentTest(index: index, width: .register, mask: ~bits, values: [0])
    }
}

/// The system calls that a thread may make. Rules add up: what one of them allows is allowed.
package struct SystemCallRules: Sendable {
    struct Rule: Sendable {
        let call: SystemCall
        /// Nil: with any arguments.
        var test: ArgumentTest?
    }

    /// In the order of the calls' numbers, one for each call.
    private(set) var rules: [Rule] = []

    package init() {}

    /// Allows `calls` with any arguments.
    package init(_ calls: SystemCall...) {
        for call in calls { allow(Rule(call: call, test: nil)) }
    }

    /// Allows `call` if an argument passes the test.
    package init(_ call: SystemCall, _ test: ArgumentTest) {
        allow(Rule(call: call, test: test))
    }

    /// Allows the ioctl requests of `requests`.
    package init(ioctl requests: [UInt32]) {
        allow(Rule(call: .ioctl, test: .oneOf(requests, at: 1)))
    }

    /// Allows what `other` allows, too.
    package mutating func add(_ other: SystemCallRules) {
        for rule in other.rules { allow(rule) }
    }

    package static func + (left: SystemCallRules, right: SystemCallRules) -> SystemCallRules {
        var sum = left
        sum.add(right)
        return sum
    }

    private mutating func allow(_ rule: Rule) {
        let place = rules.firstIndex { $0.call.rawValue >= rule.call.rawValue } ?? rules.endIndex
        guard place < rules.endIndex, rules[place].call == rule.call else {
            return rules.insert(rule, at: place)
        }
        guard let added = rule.test, var test = rules[place].test else {
            rules[place].test = nil
            return
        }
        precondition(
            test.index == added.index && test.width == added.width && test.mask == added.mask,
            "the tests of one call look at the same bits")
        test.values += added.values.filter { !test.values.contains($0) }
        rules[place].test = test
    }
}
