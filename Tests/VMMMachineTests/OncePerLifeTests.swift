import Testing

@testable import VMMMachine

@Suite("OncePerLife")
struct OncePerLifeTests {
    @Test("a guest ends once, however often and in whatever way it asks")
    func ends() {
        let life = OncePerLife()
        let asked: [MachineEvent] = [
            .reset, .reset, .powerOff, .crashed("x"), .device(.watchdogExpired),
        ]
        #expect(asked.map { life.admits($0) } == [true, false, false, false, false])
    }

    @Test("it is ready once, and what the host has to know always passes")
    func others() {
        let life = OncePerLife()
        let told: [MachineEvent] = [
            .device(.ready), .device(.ready), .device(.panicked("a")), .device(.panicked("b")),
            .failed("x"), .failed("y"), .reset,
        ]
        #expect(told.map { life.admits($0) } == [true, false, true, true, true, true, true])
    }
}
