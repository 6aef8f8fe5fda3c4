import Glibc
import VMMStorage

extension FaultRule {
    /// After `changes` more requests that change the file or synchronize it, all others of them go
    /// wrong: the disk died, or the process that writes it.
    static func deadAfter(_ changes: Int, _ effect: Effect = .fail(code: EIO)) -> FaultRule {
        var rule = FaultRule([.write, .writeZeros, .discard, .resize, .synchronize], effect)
        rule.skip = changes
        return rule
    }
}
