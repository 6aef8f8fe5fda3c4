import Testing

@testable import VMMDevices

@Suite("VsockHeader")
struct VsockHeaderTests {
    /// Every byte is another one, in the order of the specification's struct.
    private static let bytes: [UInt8] = Array(1...44)
    private static let header = VsockHeader(
        sourceCID: 0x0807_0605_0403_0201, destinationCID: 0x100f_0e0d_0c0b_0a09,
        sourcePort: 0x1413_1211, destinationPort: 0x1817_1615, length: 0x1c1b_1a19,
        type: 0x1e1d, operation: 0x201f, flags: 0x2423_2221, window: 0x2827_2625,
        forwarded: 0x2c2b_2a29)

    @Test("fields stand where the specification has them, little-endian")
    func coding() {
        var encoded = [UInt8](repeating: 0, count: 44)
        Self.header.encode(into: &encoded)
        #expect(VsockHeader(Self.bytes) == Self.header)
        #expect(encoded == Self.bytes)
    }

    @Test("fewer than 44 bytes are no header")
    func short() {
        #expect(VsockHeader(Array(Self.bytes.dropLast())) == nil)
        #expect(VsockHeader([]) == nil)
    }

    @Test("a refusal goes back where the packet came from, as a reset of the same type")
    func refusal() {
        let refusal = Self.header.refusal
        #expect(refusal.operation == VsockHeader.Operation.reset)
        #expect(refusal.sourceCID == Self.header.destinationCID)
        #expect(refusal.destinationPort == Self.header.sourcePort)
        #expect(refusal.type == Self.header.type && refusal.length == 0)
    }
}
