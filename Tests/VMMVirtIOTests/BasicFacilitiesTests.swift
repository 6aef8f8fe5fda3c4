import Testing
import VMMBase

@testable import VMMVirtIO

@Suite("BasicFacilities")
struct BasicFacilitiesTests {
    private func makeFacilities() -> BasicFacilities {
        BasicFacilities(
            features: Feature.version1 | Feature.queueReset | 1, queueSizes: [16, 8],
            configuration: [1, 2, 3],
            writableConfiguration: 1..<2)
    }

    /// As far as FEATURES_OK.
    private func negotiated(_ features: UInt64 = 0) -> BasicFacilities {
        var facilities = makeFacilities()
        facilities.driverFeatureSelect = 1
        facilities.setDriverFeatures(UInt32((features | Feature.version1) >> 32))
        _ = facilities.setStatus(DeviceStatus.acknowledge | DeviceStatus.driver)
        _ = facilities.setStatus(DeviceStatus.featuresOK)
        return facilities
    }

    @Test("DRIVER_OK activates once, status 0 then asks for a reset")
    func consequences() {
        var facilities = negotiated()
        let consequences = [DeviceStatus.driverOK, DeviceStatus.driverOK, 0].map {
            facilities.setStatus($0)
        }
        #expect(consequences == [.activate, .none, .reset])
        #expect(facilities.phase == .resetting)
    }

    @Test("status 0 clears a device that is not active at once")
    func clears() {
        var facilities = negotiated()
        facilities.queueSelect = 1
        let consequence = facilities.setStatus(0)
        #expect(consequence == .cleared && facilities.phase == .idle)
        #expect(facilities.status == 0 && facilities.queueSelect == 0)
        #expect(facilities.driverFeatures == 0)
    }

    @Test("a queue that is enabled has only its vector left to change")
    func enabled() {
        var facilities = makeFacilities()
        facilities.changeQueue { $0.isEnabled = true }
        facilities.setQueueSize(4)
        facilities.setQueueVector(1)
        #expect(facilities.queues[0].layout.size == 16)
        #expect(facilities.queues[0].vector == 1)
    }

    @Test("a selected queue that does not exist is not there", arguments: [2, 0xffff_ffff])
    func missing(select: UInt32) {
        var facilities = makeFacilities()
        facilities.queueSelect = select
        facilities.changeQueue { $0.isEnabled = true }
        facilities.setQueueVector(1)
        facilities.disableQueue()
        #expect(facilities.selectedQueue == nil && facilities.selectedQueueLimit == 0)
        #expect(facilities.queues.allSatisfy { !$0.isEnabled })
    }

    /// With queue 1 enabled and selected, and the device active.
    private func running(_ features: UInt64) -> BasicFacilities {
        var facilities = negotiated(features)
        facilities.queueSelect = 1
        facilities.setQueueSize(4)
        _ = facilities.enableQueue()
        _ = facilities.setStatus(DeviceStatus.driverOK)
        return facilities
    }

    @Test("a queue's reset is asked for once, and until it is done nothing of it changes")
    func queueReset() {
        var facilities = running(Feature.queueReset)
        let resets = [facilities.resetQueue(), facilities.resetQueue()]
        facilities.setQueueSize(2)
        let enabling = facilities.enableQueue()
        let during = facilities.queues[1]
        facilities.endQueueReset(1)
        let after = facilities.queues[1]

        #expect(resets == [.resetQueue(1), .none] && enabling == .none)
        #expect(during.isResetting && during.isEnabled && during.layout.size == 4)
        #expect(!after.isResetting && !after.isEnabled && after.layout.size == 8)
        #expect(facilities.enableQueue() == .activateQueue(1))
    }

    @Test("a queue that the device does not have is reset at once")
    func unusedQueueReset() {
        var facilities = running(Feature.queueReset)
        facilities.queueSelect = 0
        facilities.setQueueSize(2)
        let consequence = facilities.resetQueue()
        #expect(consequence == .none && facilities.queues[0].layout.size == 16)
        facilities.queueSelect = 7
        #expect(facilities.resetQueue() == .none && facilities.enableQueue() == .none)
    }

    @Test("without the feature queues are neither reset nor added")
    func noQueueReset() {
        var facilities = running(0)
        let reset = facilities.resetQueue()
        facilities.queueSelect = 0
        let enabling = facilities.enableQueue()
        #expect(reset == .none && enabling == .none && facilities.queues[1].isEnabled)
    }

    @Test("of many writes to the configuration the first needs a message, and so after it")
    func writes() {
        var facilities = makeFacilities()
        let first = facilities.writeConfiguration(at: 0, .doubleWord, 0x0909_0909)
        let second = facilities.writeConfiguration(at: 1, .byte, 7)
        let bytes = facilities.takeWrites()
        facilities.settleWrites([1, 2, 3])
        let third = facilities.writeConfiguration(at: 1, .byte, 7)
        #expect(first && !second && third)
        #expect(bytes == [1, 7, 3])
    }

    @Test("halves of an address are set apart")
    func halves() {
        var address = GuestAddress(.max)
        BasicFacilities.set(&address, 0x1234, high: false)
        BasicFacilities.set(&address, 0x5678, high: true)
        #expect(address.rawValue == 0x5678_0000_1234)
    }
}
