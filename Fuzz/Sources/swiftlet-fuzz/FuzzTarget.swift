/// One way from hostile bytes into Swiftlet. A thrown error is a good answer; a trap, a hang or
/// memory that grows with what the input claims is a finding.
protocol FuzzTarget: SendableMetatype {
    static var name: String { get }
    /// Inputs that get far.
    static func seeds() throws -> [[UInt8]]
    /// Byte strings that are worth inserting.
    static var words: [[UInt8]] { get }
    static func run(_ input: FuzzInput)
}
