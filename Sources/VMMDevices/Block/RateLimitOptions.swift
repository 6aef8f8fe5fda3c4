import VMMBase

/// The six keys by which a device or a group says its rate limits, as CH spells them.
package struct RateLimitOptions: Decodable, Sendable {
    package static var fields: [OptionField] {
        [
            OptionField(
                "bw_size", "<bytes>", "bytes in the bandwidth bucket",
                json: ("rate_limiter_config.bandwidth.size", nil)
            ).required.within(aboveZero),
            OptionField(
                "bw_refill_time", "<ms>", "time in which an empty bucket fills",
                json: ("rate_limiter_config.bandwidth.refill_time", nil)
            ).required.within(aboveZero),
            OptionField(
                "bw_one_time_burst", "<bytes>", "bytes to spend once, at first",
                json: ("rate_limiter_config.bandwidth.one_time_burst", nil)),
            OptionField(
                "ops_size", "<n>", "operations in the bucket",
                json: ("rate_limiter_config.ops.size", nil)
            ).required.within(aboveZero),
            OptionField(
                "ops_refill_time", "<ms>", "time in which an empty bucket fills",
                json: ("rate_limiter_config.ops.refill_time", nil)
            ).required.within(aboveZero),
            OptionField(
                "ops_one_time_burst", "<n>", "operations to spend once, at first",
                json: ("rate_limiter_config.ops.one_time_burst", nil)),
        ]
    }

    private static let aboveZero = 1...UInt64.max

    private let byteSize: UInt64?
    private let byteRefill: UInt64?
    private let byteBurst: UInt64?
    private let operationSize: UInt64?
    private let operationRefill: UInt64?
    private let operationBurst: UInt64?

    private enum CodingKeys: String, CodingKey {
        case byteSize = "bw_size"
        case byteRefill = "bw_refill_time"
        case byteBurst = "bw_one_time_burst"
        case operationSize = "ops_size"
        case operationRefill = "ops_refill_time"
        case operationBurst = "ops_one_time_burst"
    }

    /// Whether any of the keys is given.
    package var isGiven: Bool {
        [byteSize, byteRefill, byteBurst, operationSize, operationRefill, operationBurst]
            .contains { $0 != nil }
    }

    /// A bucket is a size and a time, both above zero; a burst needs a bucket.
    package func problems(option: String) -> [ConfigurationProblem] {
        Self.problems(option, "bw", byteSize, byteRefill, byteBurst)
            + Self.problems(option, "ops", operationSize, operationRefill, operationBurst)
    }

    private static func problems(
        _ option: String, _ prefix: String, _ size: UInt64?, _ refill: UInt64?, _ burst: UInt64?
    ) -> [ConfigurationProblem] {
        guard size != nil || refill != nil || burst != nil else { return [] }
        return [("\(prefix)_size", size), ("\(prefix)_refill_time", refill)].compactMap {
            key, value in
            if let value, value > 0 { return nil }
            return ConfigurationProblem(
                option: "\(option) \(key)", value: value.map(String.init) ?? "",
                reason: "expected a number above 0: a limit is a size and a refill time")
        }
    }

    /// The limiter, full now; nil where nothing is limited.
    package func limiter(_ clock: any HostClock) -> RateLimiter? {
        let bytes = Self.bucket(byteSize, byteRefill, byteBurst)
        let operations = Self.bucket(operationSize, operationRefill, operationBurst)
        guard bytes != nil || operations != nil else { return nil }
        return RateLimiter(bytes: bytes, operations: operations, clock: clock)
    }

    private static func bucket(
        _ size: UInt64?, _ refill: UInt64?, _ burst: UInt64?
    ) -> RateLimiter.Bucket? {
        guard let size, let refill, size > 0, refill > 0 else { return nil }
        return RateLimiter.Bucket(
            size: size, refillMilliseconds: refill, oneTimeBurst: burst ?? 0)
    }
}

/// `--rate-limit-group`: a limit that several disks share.
package struct RateLimitGroup: Decodable, Sendable {
    package static let option = "--rate-limit-group"
    package static var fields: [OptionField] {
        [OptionField("id", "<name>", "the group's name, for rate_limit_group").required]
            + RateLimitOptions.fields
    }

    package let id: String
    package let limits: RateLimitOptions

    private enum CodingKeys: String, CodingKey {
        case id
    }

    package init(from decoder: any Decoder) throws {
        id = try decoder.container(keyedBy: CodingKeys.self).decode(String.self, forKey: .id)
        limits = try RateLimitOptions(from: decoder)
    }

    package func problems() -> [ConfigurationProblem] {
        guard limits.isGiven else {
            return [
                ConfigurationProblem(
                    option: "\(Self.option) id", value: id,
                    reason: "limits nothing: give bw_size or ops_size")
            ]
        }
        return limits.problems(option: Self.option)
    }
}
