/// What methods are made of (ACPI 6.5, 20.2.5.3 and 20.2.5.4).
extension AML {
    /// The method's argument `index`, 0 to 6.
    package static func argument(_ index: UInt8) -> AML {
        precondition(index < 7, "an AML method has 7 arguments")
        return AML([0x68 + index])
    }

    /// The method's local variable `index`, 0 to 7.
    package static func local(_ index: UInt8) -> AML {
        precondition(index < 8, "an AML method has 8 local variables")
        return AML([0x60 + index])
    }

    /// Copies `value` to `target`.
    package static func store(_ value: AML, to target: AML) -> AML {
        AML([0x70], value, target)
    }

    /// Tells the driver of `object` that `event` has happened.
    package static func notify(_ object: String, _ event: UInt64) -> AML {
        notify(object, .integer(event))
    }

    /// Tells the driver of `object` of an event that the method was told of.
    package static func notify(_ object: String, _ event: AML) -> AML {
        AML([0x86], .path(object), event)
    }

    /// Waits for a mutex, for ever.
    package static func acquire(_ mutex: String) -> AML {
        AML([0x5b, 0x23], .path(mutex), AML([0xff, 0xff]))
    }

    /// Lets go of a mutex.
    package static func release(_ mutex: String) -> AML {
        AML([0x5b, 0x27], .path(mutex))
    }

    /// Runs a method that takes as many arguments.
    package static func call(_ method: String, _ arguments: AML...) -> AML {
        AML(path(method).bytes + sequence(arguments))
    }

    /// A value shifted left by a number of bits.
    package static func shiftLeft(_ value: AML, by bits: AML) -> AML {
        AML([0x79], value, bits, AML([0x00]))
    }

    /// The bits that both have, as a value.
    package static func and(_ left: AML, _ right: AML) -> AML {
        AML([0x7b], left, right, AML([0x00]))
    }

    /// Whether both are equal: numbers, strings or buffers.
    package static func equal(_ left: AML, _ right: AML) -> AML {
        AML([0x93], left, right)
    }

    /// Runs `terms` if `predicate` is not zero.
    package static func `if`(_ predicate: AML, _ terms: [AML]) -> AML {
        AML([0xa0], package: predicate.bytes + sequence(terms))
    }

    /// Ends the method with a value.
    package static func `return`(_ value: AML) -> AML {
        AML([0xa4], value)
    }
}
