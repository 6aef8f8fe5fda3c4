/// Runs a program of the kernel's packet filter language as the kernel does, for the instructions
/// that seccomp filters are made of here.
struct FilterInterpreter {
    private let code: [UInt64]

    init(_ code: [UInt64]) { self.code = code }

    /// The verdict on a call; nil where the kernel would refuse the program or it runs off its end.
    func decide(_ call: UInt32, _ architecture: UInt32, _ arguments: [UInt64]) -> UInt32? {
        // `struct seccomp_data`: number, architecture, instruction pointer, six arguments.
        var data: [UInt32] = [call, architecture, 0, 0]
        for index in 0..<6 {
            let argument = index < arguments.count ? arguments[index] : 0
            data += [
                UInt32(truncatingIfNeeded: argument), UInt32(truncatingIfNeeded: argument >> 32),
            ]
        }
        var accumulator: UInt32 = 0
        var place = 0
        while code.indices.contains(place) {
            let instruction = code[place]
            let value = UInt32(truncatingIfNeeded: instruction >> 32)
            let ifTrue = Int(instruction >> 16 & 0xff)
            let ifFalse = Int(instruction >> 24 & 0xff)
            place += 1
            switch instruction & 0xffff {
            case 0x20:
                guard value % 4 == 0, data.indices.contains(Int(value) / 4) else { return nil }
                accumulator = data[Int(value) / 4]
            case 0x54: accumulator &= value
            case 0x05: place += Int(value)
            case 0x15: place += accumulator == value ? ifTrue : ifFalse
            case 0x35: place += accumulator >= value ? ifTrue : ifFalse
            case 0x06: return value
            default: return nil
            }
        }
        return nil
    }
}
