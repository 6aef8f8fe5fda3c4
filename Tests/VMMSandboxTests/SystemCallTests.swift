import Foundation
import Testing

@testable import VMMHost
@testable import VMMSandbox

@Suite("System calls")
struct SystemCallTests {
    @Test("each number is that of the kernel's name", arguments: SystemCall.allCases)
    func numbers(call: SystemCall) {
        #expect(SystemCallName.text(of: Int32(call.rawValue)) == "\(call)")
    }
}
