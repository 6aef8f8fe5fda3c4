import Testing
import VMMStorage

@Suite("ExtentMap")
struct ExtentMapTests {
    private static let granule: UInt64 = 65536

    private func place(_ offset: UInt64, isWritable: Bool = true) -> ExtentMap.Place {
        .data(file: 3, offset: offset, isWritable: isWritable)
    }

    @Test("a fixed map finds the extent and the place inside it")
    func fixed() {
        let map = ExtentMap(fixed: [
            .init(.data(file: 0, offset: 4096, isWritable: true), count: 1000),
            .init(.zeros, count: 24),
            .init(.data(file: 1, offset: 0, isWritable: false), count: 512),
        ])

        #expect(
            map.extent(at: 100, limit: 5000)
                == .init(.data(file: 0, offset: 4196, isWritable: true), count: 900))
        #expect(map.extent(at: 1000, limit: 10) == .init(.zeros, count: 10))
        #expect(
            map.extent(at: 1024, limit: 9999)
                == .init(.data(file: 1, offset: 0, isWritable: false), count: 512))
        #expect(map.extent(at: 1536, limit: 7) == .init(.unknown, count: 7))
    }

    @Test("nothing is known before it is published, and what is published has its right and file")
    func publishes() {
        let map = ExtentMap(granule: Self.granule)
        #expect(map.extent(at: 70000, limit: 4096) == .init(.unknown, count: 4096))

        map.publish(place(1 << 40, isWritable: false), at: 65536, count: 65536)

        #expect(
            map.extent(at: 70000, limit: 4096)
                == .init(place(1 << 40 + 4464, isWritable: false), count: 4096))
        #expect(map.extent(at: 0, limit: 100_000) == .init(.unknown, count: 65536))
    }

    @Test("neighbours in the file are one extent, others are not")
    func joins() {
        let map = ExtentMap(granule: Self.granule)
        map.publish(place(0x10_0000), at: 0, count: 2 * 65536)
        map.publish(place(0x12_0000), at: 2 * 65536, count: 65536)
        map.publish(place(0x50_0000), at: 3 * 65536, count: 65536)
        map.publish(.zeros, at: 4 * 65536, count: 2 * 65536)

        #expect(map.extent(at: 512, limit: 1 << 30) == .init(place(0x10_0200), count: 196096))
        #expect(map.extent(at: 196608, limit: 1 << 30) == .init(place(0x50_0000), count: 65536))
        #expect(map.extent(at: 262145, limit: 1 << 30) == .init(.zeros, count: 131071))
    }

    @Test("an answer looks at so many granules and no more")
    func stretches() {
        let map = ExtentMap(granule: 512)
        map.publish(.zeros, at: 0, count: 5000 * 512)

        let first = map.extent(at: 0, limit: 1 << 30)
        #expect(first.place == .zeros && first.count < 4100 * 512)
        let rest = 5000 * 512 - first.count
        #expect(map.extent(at: first.count, limit: 1 << 30) == .init(.zeros, count: rest))
    }

    @Test("what is taken back is unknown again")
    func forgets() {
        let map = ExtentMap(granule: 512)
        map.publish(place(512), at: 0, count: 2048)

        map.publish(.unknown, at: 512, count: 512)

        #expect(map.extent(at: 0, limit: 4096) == .init(place(512), count: 512))
        #expect(map.extent(at: 512, limit: 4096).place == .unknown)
        #expect(map.extent(at: 1024, limit: 4096) == .init(place(1536), count: 1024))
    }

    @Test("a map of a huge disk forgets old slices and never mixes them up")
    func isBounded() {
        let map = ExtentMap(granule: 512)
        // Slices are 256 KiB of the disk; 2048 of them are kept.
        let far: UInt64 = 2048 * 256 << 10
        map.publish(place(512), at: 0, count: 512)

        map.publish(place(1024), at: far, count: 512)

        #expect(map.extent(at: far, limit: 512) == .init(place(1024), count: 512))
        #expect(map.extent(at: 0, limit: 512).place == .unknown)
        map.publish(.unknown, at: 0, count: 512)
        #expect(map.extent(at: far, limit: 512) == .init(place(1024), count: 512))
    }
}
