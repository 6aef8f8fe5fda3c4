import Testing
import VMMBase

@testable import VMMFirmware

@Suite("KernelImage")
struct KernelImageTests {
    @Test(
        "a file of another kind is not a kernel",
        arguments: [
            [], [0x7f], Array("#!/bin/sh\n".utf8), [UInt8](repeating: 0, count: 4096),
            SampleBzImage.file.replacing(at: 0x1fe, with: [0, 0]),
            SampleBzImage.file.replacing(at: 0x202, with: Array("HDRS".utf8)),
        ] as [[UInt8]])
    func otherFiles(content: [UInt8]) {
        #expect(parseError(content) == .unrecognised)
        #expect(
            parseError(content)?.description
                == "not a Linux kernel: neither an ELF file nor a bzImage")
    }

    @Test("a magic number alone is a truncated ELF file")
    func onlyMagic() {
        #expect(
            parseError([0x7f, 0x45, 0x4c, 0x46])?.description
                == "truncated: the ELF header ends at byte 64, the file has 4 bytes")
    }

    @Test("a read that fails is told with its part of the file")
    func failingRead() {
        #expect {
            try KernelImage.parse(BrokenImage(byteCount: 4096, answer: nil))
        } throws: { error in
            "\(error)" == "cannot read the start of the file: input/output error"
        }
    }

    @Test("a read that delivers too little is told")
    func shortRead() {
        #expect {
            try KernelImage.parse(BrokenImage(byteCount: 4096, answer: [1, 2]))
        } throws: { error in
            "\(error)" == "cannot read the start of the file: 2 of 656 bytes were read"
        }
    }
}
