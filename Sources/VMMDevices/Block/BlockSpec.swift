import VMMBase
import VMMHost
import VMMSandbox
import VMMStorage
import VMMVirtIO

/// `--disk`: a virtio-blk device on a disk image or a block device.
package struct BlockSpec: DeviceSpec, Decodable {
    package static let word = "disk"
    package static let jsonName = "disks"
    package static let summary = "A disk, from an image file or a block device"
    package static let isRepeatable = true
    package static let isHotpluggable = true
    package static var fields: [OptionField] {
        [
            OptionField("path", "<file>", "the image file or block device").required,
            OptionField("readonly", "on|off", "the guest cannot write", default: "off"),
            OptionField(
                "image_type", "<format>", "raw, qcow2, vhd, vhdx or vmdk",
                default: "detected",
                json: (
                    nil,
                    .choice([
                        ("raw", "Raw"), ("qcow2", "Qcow2"), ("vhd", "FixedVhd"), ("vhdx", "Vhdx"),
                        ("vmdk", "FlatVmdk"), ("detected", "Unknown"),
                    ])
                )),
            OptionField(
                "backing_files", "on|off", "a qcow2 image may fall back on others",
                default: "off"),
            OptionField("direct", "on|off", "bypass the host's page cache", default: "off"),
            OptionField("sparse", "on|off", "give discarded room back", default: "on"),
            OptionField(
                "lock_granularity", "byte-range|full", "how much of the file is locked",
                default: "byte-range",
                json: (nil, .choice([("byte-range", "ByteRange"), ("full", "Full")]))),
            OptionField(
                "serial", "<text>", "serial number, at most 20 bytes",
                default: "the file's identity"),
            OptionField(
                "num_queues", "<n>", "request queues; several have threads", default: "1"
            ).within(queueCounts),
            OptionField(
                "queue_affinity", "[<q>@[<cpus>],..]", "the host CPUs of a queue's thread",
                json: (nil, .map(index: "queue_index", list: "host_cpus"))
            ).within(0...UInt(LoopThread.cpuLimit - 1)),
            OptionField(
                "queue_size", "<n>", "requests in a queue, a power of two", default: "128"
            ).within(queueSizes),
        ] + RateLimitOptions.fields + [
            OptionField(
                "rate_limit_group", "<name>", "share the limits of a --rate-limit-group"),
            OptionField("id", "<name>", "the device's name", default: "_disk<n>"),
        ] + PlaceOptions.fields + [
            OptionField(
                "_disable_io_uring", "on|off", "no io_uring, for tests", default: "off",
                isHidden: true, json: ("disable_io_uring", nil)),
            OptionField(
                "_disable_aio", "on|off", "no Linux AIO, for tests", default: "off",
                isHidden: true, json: ("disable_aio", nil)),
        ]
    }

    package static var sandbox: SandboxNeeds { .images }

    /// `lock_granularity` as CH spells it.
    package enum LockGranularity: String, OptionChoice, Decodable, Sendable {
        case byteRange = "byte-range"
        case full
    }

    /// Each queue is a thread of ours; users go to the number of vCPUs.
    private static let queueCounts: ClosedRange<UInt16> = 1...256
    /// 1024 is what one preadv takes (IOV_MAX), and a chain has at most this many pieces.
    private static let queueSizes: ClosedRange<UInt16> = 4...1024

    package let path: String
    package let isReadOnly: Bool?
    package let format: ImageFormat?
    package let allowsBackingFiles: Bool?
    package let isDirect: Bool?
    package let isSparse: Bool?
    package let lock: LockGranularity?
    package let serial: String?
    package let queueCount: UInt16?
    package let queueAffinity: QueueAffinity?
    package let queueSize: UInt16?
    package let limits: RateLimitOptions
    package let limitGroup: String?
    package let id: String?
    package let place: PlaceOptions
    package let disablesRing: Bool?
    package let disablesAIO: Bool?

    private enum CodingKeys: String, CodingKey {
        case path
        case isReadOnly = "readonly"
        case format = "image_type"
        case allowsBackingFiles = "backing_files"
        case isDirect = "direct"
        case isSparse = "sparse"
        case lock = "lock_granularity"
        case serial
        case queueCount = "num_queues"
        case queueAffinity = "queue_affinity"
        case queueSize = "queue_size"
        case limitGroup = "rate_limit_group"
        case id
        case disablesRing = "_disable_io_uring"
        case disablesAIO = "_disable_aio"
    }

    package init(from decoder: any Decoder) throws {
        let keys = try decoder.container(keyedBy: CodingKeys.self)
        path = try keys.decode(String.self, forKey: .path)
        isReadOnly = try keys.decodeIfPresent(Bool.self, forKey: .isReadOnly)
        format = try keys.decodeIfPresent(ImageFormat.self, forKey: .format)
        allowsBackingFiles = try keys.decodeIfPresent(Bool.self, forKey: .allowsBackingFiles)
        isDirect = try keys.decodeIfPresent(Bool.self, forKey: .isDirect)
        isSparse = try keys.decodeIfPresent(Bool.self, forKey: .isSparse)
        lock = try keys.decodeIfPresent(LockGranularity.self, forKey: .lock)
        serial = try keys.decodeIfPresent(String.self, forKey: .serial)
        queueCount = try keys.decodeIfPresent(UInt16.self, forKey: .queueCount)
        queueSize = try keys.decodeIfPresent(UInt16.self, forKey: .queueSize)
        queueAffinity = try keys.decodeIfPresent(QueueAffinity.self, forKey: .queueAffinity)
        limits = try RateLimitOptions(from: decoder)
        limitGroup = try keys.decodeIfPresent(String.self, forKey: .limitGroup)
        id = try keys.decodeIfPresent(String.self, forKey: .id)
        place = try PlaceOptions(from: decoder)
        disablesRing = try keys.decodeIfPresent(Bool.self, forKey: .disablesRing)
        disablesAIO = try keys.decodeIfPresent(Bool.self, forKey: .disablesAIO)
    }

    package var files: [SandboxFile] {
        [.image(path, isReadOnly: isReadOnly ?? false)]
    }

    /// As `files`, with those that the image falls back on or consists of: it is opened for that.
    package func allFiles() throws(ConfigurationProblem) -> [SandboxFile] {
        var options = diskOptions.image
        options.isReadOnly = true
        do throws(ImageError) {
            let image = try ImageOpener.open(path: path, options)
            let others = image.files.map { SandboxFile.image($0.path, isReadOnly: true) }
            try image.close()
            // Only what the image itself consists of is written.
            let isWritten = isReadOnly != true
            return files
                + others.filter { $0.path != path }.map { other in
                    let isPart = isWritten && image.format == .vmdk
                    return isPart ? .image(other.path, isReadOnly: false) : other
                }
        } catch {
            throw problem("path", path, error.description)
        }
    }

    package func problems() -> [ConfigurationProblem] {
        var problems = limits.problems(option: Self.option)
        if let serial, serial.utf8.count > VirtIOBlock.serialByteCount {
            problems.append(problem("serial", serial, "at most 20 bytes"))
        }
        if let queueSize, queueSize.nonzeroBitCount != 1 || !Self.queueSizes.contains(queueSize) {
            problems.append(
                problem("queue_size", "\(queueSize)", "expected a power of two from 4 to 1024"))
        }
        if let queueCount, !Self.queueCounts.contains(queueCount) {
            problems.append(problem("num_queues", "\(queueCount)", "expected 1 to 256"))
        }
        for queue in queueAffinity?.cpus.keys.sorted() ?? [] where queue >= queueCount ?? 1 {
            problems.append(
                problem("queue_affinity", "\(queue)", "there are \(queueCount ?? 1) queues"))
        }
        if let limitGroup, limits.isGiven {
            problems.append(
                problem("rate_limit_group", limitGroup, "excludes limits of the disk's own"))
        }
        return problems
    }

    private var diskOptions: DiskOptions {
        var options = DiskOptions()
        options.image.isReadOnly = isReadOnly ?? false
        options.image.format = format
        options.image.allowsBackingFiles = allowsBackingFiles ?? false
        options.image.isDirect = isDirect ?? false
        options.image.lock = lock == .full ? .whole : .byteRange
        options.isSparse = isSparse ?? true
        options.allowsAIO = !(disablesAIO ?? false)
        switch (disablesRing ?? false, disablesAIO ?? false) {
        case (false, _): options.engine = nil
        case (true, false): options.engine = .aio
        case (true, true): options.engine = .synchronous
        }
        return options
    }

    package func build(_ context: DeviceContext) throws -> BuiltDevice {
        var options = diskOptions
        options.limiter = limits.limiter(context.clock)
        if let limitGroup {
            guard let shared = context.rateLimitGroups[limitGroup] else {
                throw problem("rate_limit_group", limitGroup, "there is no such group")
            }
            options.limiter = shared
        }
        let disk: Disk
        do throws(ImageError) {
            disk = try Disk(path: path, options)
        } catch {
            throw problem("path", path, error.description)
        }
        let count = Int(queueCount ?? 1)
        let threads: [LoopThread]
        do throws(ConfigurationProblem) {
            threads = try makeThreads(count, id: context.id)
        } catch {
            _ = disk.close()
            throw error
        }
        return .virtIO(
            VirtIOBlock(
                id: context.id, disk: disk,
                queueSizes: Array(repeating: queueSize ?? 128, count: count),
                serial: serial, clock: context.clock,
                threads: threads))
    }

    /// A thread for each of several queues, or for one that is to keep to some CPUs.
    private func makeThreads(
        _ count: Int, id: String
    ) throws(ConfigurationProblem) -> [LoopThread] {
        guard count > 1 || queueAffinity != nil else { return [] }
        do throws(HostError) {
            return try LoopThread.forQueues(
                of: id, count: count,
                cpus: queueAffinity.map { affinity in { affinity.cpus[$0] ?? [] } })
        } catch {
            let key = queueAffinity == nil ? "num_queues" : "queue_affinity"
            throw problem(key, "", error.description)
        }
    }
}

extension ImageFormat: OptionChoice, Decodable {}
