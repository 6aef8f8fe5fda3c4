import Foundation
import Testing

/// DESIGN section 3: a device is its folder, one line in the catalogue, and its test file.
@Suite("Catalogue")
struct CatalogTests {
    /// Names of spec types: every file of a device's folder that ends so, but for the protocol.
    static let specs = Repository.sources
        .filter { $0.module == "VMMDevices" && $0.path.hasSuffix("Spec.swift") }
        .map { String(($0.path.split(separator: "/").last ?? "").dropLast(".swift".count)) }
        .filter { $0 != "DeviceSpec" }

    @Test("there are specs to look at")
    func some() {
        #expect(Self.specs.count >= 6)
    }

    @Test("the catalogue lists every spec once, and nothing else")
    func isListed() throws {
        let catalog = try Repository.text("Sources/VMMDevices/DeviceCatalog.swift")
        let listed = catalog.matches(of: /(\w+)\.self/).map { String($0.1) }
        #expect(listed.sorted() == Self.specs.sorted())
    }

    @Test("every spec has a test that mentions it", arguments: specs)
    func isTested(spec: String) {
        let tests = Repository.tests.filter { file in
            file.module == "VMMDevicesTests"
                && file.lines.contains { $0.contains("as: \(spec).self") }
        }
        #expect(!tests.isEmpty)
    }
}
