import Foundation
import Testing
import VMMTestSupport

@testable import VMMStorage

/// What an image of somebody else's may cost.
@Suite("QCOW2 bounds")
struct QCOW2BoundsTests {
    @Test("refcounts that leave nothing free are searched once, and not for ever")
    func full() throws {
        // Blocks of 512 bytes, 256 counts of two bytes: all say that a cluster is used.
        let geometry = QCOW2Geometry(clusterBits: 9, refcountOrder: 4)
        let file = MemoryFile([UInt8](repeating: 1, count: 4096))
        let table = [UInt64](repeating: 512, count: 1 << 16)
        let refcounts = QCOW2Refcounts(
            file, geometry, table: table, tableOffset: 1024, fileByteCount: 4096)
        refcounts.scanLimit = 1 << 12
        #expect(throws: ImageError.self) { try refcounts.allocate(1) }
        refcounts.scanLimit = .max / 2
        #expect(throws: ImageError.self) { try refcounts.allocate(1) }
    }

    @Test("the tables of a chain have a common limit")
    func tables() throws {
        let directory = try TemporaryDirectory()
        let (base, top) = (directory.file("base"), directory.file("top"))
        try QEMU.make("qemu-img", ["create", "-q", "-f", "qcow2", base, "1M"])
        try QEMU.make(
            "qemu-img", ["create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top])
        var options = ImageOptions()
        options.allowsBackingFiles = true
        options.lock = .none
        options.isReadOnly = true
        // Each has one cluster of refcount table, and an entry for its one L2 table.
        let one: UInt64 = 65536 + 8
        for (limit, isOpened) in [(one, false), (2 * one - 1, false), (2 * one, true)] {
            options.tableByteLimit = limit
            #expect(((try? ImageOpener.open(path: top, options)) != nil) == isOpened, "\(limit)")
        }
    }

    @Test("a check that a machine waits for has less memory than one by hand")
    func references() throws {
        var references = QCOW2References(chunkLimit: 2)
        try references.add(0)
        try references.add(127)
        try references.add(128)
        #expect(throws: ImageError.self) { try references.add(256) }
        #expect(references.count(of: 127) == 1)

        let directory = try TemporaryDirectory()
        let path = directory.file("image")
        try Data().write(to: URL(filePath: path))
        let file = try HostFile(path: path, isReadOnly: false, lock: .none)
        try QCOW2Image.create(on: file, QCOW2CreateOptions(byteCount: 1 << 20))
        var byHand = ImageOptions()
        byHand.isForRepair = true
        let waiting = try QCOW2Image(file, ImageOptions()).referenceLimit
        #expect(try waiting < QCOW2Image(file, byHand).referenceLimit)
    }
}
