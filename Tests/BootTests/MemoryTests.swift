import Foundation
import Testing

@Suite("Memory", .guest)
struct MemoryTests {
    private static let line4GiB = 0x1_0000_0000

    @Test("a guest has the memory that was asked for", arguments: [128, 1024, 4096, 8192])
    func size(mebibytes: Int) throws {
        var boot = Boot(
            """
            say total "$(awk '/^MemTotal/ { print $2 }' /proc/meminfo)"
            sed -n 's/^\\([0-9a-f]*-[0-9a-f]*\\) : System RAM/= range \\1/p' /proc/iomem
            """)
        boot.memory = "size=\(mebibytes)M"

        let guest = try boot.run()

        let ranges = try guest.all("range").map(Self.range)
        let sum = ranges.map(\.count).reduce(0, +)
        // The hole below 1 MiB is RAM that the guest is not told of.
        #expect((mebibytes << 20) - sum < 1 << 20)
        #expect(sum <= mebibytes << 20)
        #expect(ranges.contains { $0.lowerBound >= Self.line4GiB } == (mebibytes >= 4096))
        // The kernel keeps some for itself: its code, and a 64th for its books.
        let total = try guest.number("total") / 1024
        #expect(total < mebibytes)
        #expect(total > mebibytes - mebibytes / 32 - 60)
    }

    @Test("memory above 4 GiB keeps what is written to it")
    func highMemory() throws {
        // The zone `Normal` begins at 4 GiB, and is what the kernel gives out first.
        var boot = Boot(
            """
            free_high() {
                sed -n '/zone *Normal/,$s/.*pages free *//p' /proc/zoneinfo | head -n 1
            }
            mount -t tmpfs -o size=1G tmp /tmp
            before=$(free_high)
            head -c 67108864 /dev/urandom >/tmp/a || fail random
            cat /tmp/a /tmp/a /tmp/a >/tmp/b
            after=$(free_high)
            say taken $(((before - after) * 4096))
            first=$(sha256sum </tmp/a)
            for part in 0 1 2; do
                [ "$first" = "$(dd if=/tmp/b bs=1M skip=$((part * 64)) count=64 2>/dev/null |
                    sha256sum)" ] || fail "part $part differs"
            done
            say same yes
            """)
        boot.memory = "size=6G"

        let guest = try boot.run()

        #expect(try guest.told("same") == "yes")
        #expect(try guest.number("taken") > 200 << 20)
    }

    /// Reads "start-last".
    private static func range(_ text: String) throws -> Range<Int> {
        let ends = text.split(separator: "-").compactMap { Int($0, radix: 16) }
        try #require(ends.count == 2 && ends[0] <= ends[1], "\(text)")
        return ends[0]..<ends[1] + 1
    }
}
