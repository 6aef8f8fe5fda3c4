import ArgumentParser
import VMMStorage

/// `swiftlet image check`: whether an image contradicts itself. Exit statuses are qemu-img's: 0
/// sound, 1 could not be checked, 2 corruptions, 3 leaks only, 63 nothing to check in this format.
struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Looks for contradictions in an image and mends them.",
        discussion: """
            Exit status: 0 nothing is wrong (any more), 1 the check failed, 2 the image is \
            damaged, 3 room in it is lost, 63 its format has nothing to check.
            """)

    enum Repair: String, ExpressibleByArgument {
        case leaks, all
    }

    @Option(name: .shortAndLong, help: "The format; the default is what the file holds.")
    var format: ImageFormat?

    @Option(name: .shortAndLong, help: "Mend 'leaks' or 'all'.")
    var repair: Repair?

    @Flag(help: "Print JSON, with the names that qemu-img uses.")
    var json = false

    @Argument(help: "The image.")
    var file: String

    func run() throws {
        let image = try ImageCommand.open(file, format, to: repair == nil ? .look : .mend)
        guard ![.raw, .vmdk].contains(image.format) else {
            print("'\(file)': the \(image.format.rawValue) format has no structure to check")
            throw ExitCode(63)
        }
        let result: ImageCheck
        do throws(ImageError) {
            result = try image.check(
                repair.map { $0 == .all ? .everything : .leaks } ?? .nothing)
            try image.close()
        } catch {
            throw ToolError(file, error)
        }
        let report = Report(result, filename: file, format: image.format.rawValue)
        print(json ? try JSONText.make(report) : Self.text(result))
        if result.corruptions > 0 { throw ExitCode(2) }
        if result.leaks > 0 { throw ExitCode(3) }
    }

    private struct Report: Encodable {
        let filename: String
        let format: String
        let checkErrors = 0
        let corruptions: Int
        let leaks: Int
        let corruptionsFixed: Int
        let leaksFixed: Int
        let totalClusters: UInt64
        let allocatedClusters: UInt64
        let imageEndOffset: UInt64
        let findings: [String]

        enum CodingKeys: String, CodingKey {
            case filename, format, corruptions, leaks, findings
            case checkErrors = "check-errors"
            case corruptionsFixed = "corruptions-fixed"
            case leaksFixed = "leaks-fixed"
            case totalClusters = "total-clusters"
            case allocatedClusters = "allocated-clusters"
            case imageEndOffset = "image-end-offset"
        }

        init(_ result: ImageCheck, filename: String, format: String) {
            self.filename = filename
            self.format = format
            corruptions = result.corruptions
            leaks = result.leaks
            corruptionsFixed = result.repairedCorruptions
            leaksFixed = result.repairedLeaks
            totalClusters = result.totalUnits
            allocatedClusters = result.allocatedUnits
            imageEndOffset = result.endOffset
            findings = result.findings
        }
    }

    private static func text(_ result: ImageCheck) -> String {
        var lines = result.findings
        if result.repairedCorruptions + result.repairedLeaks > 0 {
            lines.append(
                "\(result.repairedCorruptions) corruptions and \(result.repairedLeaks) leaks "
                    + "were mended.")
        }
        if result.corruptions + result.leaks == 0 {
            lines.append("No errors were found on the image.")
        } else {
            lines.append("\(result.corruptions) corruptions and \(result.leaks) leaks are left.")
        }
        if result.totalUnits > 0 {
            lines.append("\(result.allocatedUnits) of \(result.totalUnits) units have their room.")
        }
        return lines.joined(separator: "\n")
    }
}
