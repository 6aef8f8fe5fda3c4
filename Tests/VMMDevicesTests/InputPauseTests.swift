import Testing

@testable import VMMDevices

@Suite("InputPause")
struct InputPauseTests {
    @Test("what is decided while another thread tells the channel is told after it, by that thread")
    func order() {
        var pause = InputPause()
        pause.set(true)
        let tells = pause.beginTelling()
        let first = pause.next()
        // While the first thread is on its way to the channel, another takes the input.
        pause.set(false)
        let otherTells = pause.beginTelling()
        let second = pause.next()
        let last = pause.next()
        #expect(tells && !otherTells)
        #expect(first == true && second == false && last == nil)
    }

    @Test("what comes back before it was told is not told")
    func forthAndBack() {
        var pause = InputPause()
        pause.set(true)
        let tells = pause.beginTelling()
        pause.set(false)
        let told = pause.next()
        #expect(tells && told == nil)
        pause.set(true)
        let tellsAgain = pause.beginTelling()
        #expect(tellsAgain)
    }
}
