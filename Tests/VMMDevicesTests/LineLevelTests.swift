import Testing
import VMMTestSupport

@testable import VMMDevices

@Suite("LineLevel")
struct LineLevelTests {
    @Test("a fall and a rise while another thread drives become an edge of their own")
    func edgeWhileDriving() {
        var level = LineLevel()
        let line = RecordingLine()
        level.set(true)
        let isDriver = level.beginDriving()
        #expect(isDriver)
        level.nextStep()?.apply(to: line)
        // While the first thread is inside set(true), another acknowledges and a new cause comes.
        level.set(false)
        let drivesFall = level.beginDriving()
        level.set(true)
        let drivesRise = level.beginDriving()
        #expect(!drivesFall && !drivesRise)
        level.nextStep()?.apply(to: line)
        let last = level.nextStep()
        #expect(last == nil)
        #expect(line.riseCount == 2)
        #expect(line.isHigh)
    }

    @Test("an unchanged level needs no call")
    func unchanged() {
        var level = LineLevel()
        level.set(false)
        let drives = level.beginDriving()
        #expect(!drives)
    }
}
