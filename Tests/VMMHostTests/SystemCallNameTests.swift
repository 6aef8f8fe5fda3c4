import Testing

@testable import VMMHost

@Suite("System call names")
struct SystemCallNameTests {
    @Test(
        "a number has the kernel's name",
        arguments: [
            (0, "read"), (1, "write"), (16, "ioctl"), (59, "execve"), (231, "exit_group"),
            (257, "openat"), (334, "rseq"), (424, "pidfd_send_signal"), (435, "clone3"),
            (444, "landlock_create_ruleset"), (462, "mseal"),
        ] as [(Int32, String)])
    func names(number: Int32, name: String) {
        #expect(SystemCallName.text(of: number) == name)
    }

    @Test(
        "a number that nobody has is a question mark", arguments: [-1, 335, 400, 9999] as [Int32])
    func unknown(number: Int32) {
        #expect(SystemCallName.text(of: number) == "?")
    }
}
