import Testing
import VMMHost
import VMMSandbox

@Suite("Sandbox files")
struct SandboxFileTests {
    @Test("a folder covers what is below it, and no neighbour")
    func folders() {
        let folder = SandboxFile("/images", [.read, .write])
        #expect(folder.covers(SandboxFile("/images/a", .read)))
        #expect(folder.covers(SandboxFile("/images", .read)))
        #expect(!folder.covers(SandboxFile("/images2", .read)))
        #expect(SandboxFile("/", .read).covers(SandboxFile("/any", .read)))
    }

    @Test("who may read may not write")
    func access() {
        let file = SandboxFile("/a", .read)
        #expect(!file.covers(SandboxFile("/a", [.read, .write])))
    }

    @Test(
        "a socket is made in its folder",
        arguments: [("/run/vm/s", "/run/vm"), ("/s", "/"), ("s", "."), ("run/s", "run")])
    func sockets(path: String, folder: String) {
        #expect(SandboxFile.socket(path).path == folder)
    }
}
