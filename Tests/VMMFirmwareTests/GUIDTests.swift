import Testing
import VMMBase

@testable import VMMFirmware

@Suite("GUID")
struct GUIDTests {
    @Test("the first three groups are little-endian")
    func byteOrder() {
        #expect(
            GUID("00112233-4455-6677-8899-aabbccddeeff")?.bytes
                == [0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66]
                + [0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff])
    }

    @Test(
        "other texts are no UUID",
        arguments: [
            "", "00112233445566778899aabbccddeeff", "0011223-34455-6677-8899-aabbccddeeff",
            "00112233-4455-6677-8899-aabbccddeefg", "+0112233-4455-6677-8899-aabbccddeeff",
            "00112233-4455-6677-8899-aabbccddeeff-", "00112233-4455-6677-8899-äabbccddeef",
        ])
    func malformed(text: String) {
        #expect(GUID(text) == nil)
    }
}
