"""What the measurements in the bed share: a guest's initramfs, its disks, and its process."""

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time

DISKS = "/tmp/disks"


def cpio(files):
    """An archive of executable files, by name, in the format that the kernel unpacks (newc)."""
    def entry(name, data, mode):
        fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08x" % field for field in fields)
        head += name.encode() + b"\0"
        head += bytes(-len(head) % 4)
        return head + data + bytes(-len(data) % 4)
    entries = [entry(name, data, 0o100755) for name, data in files.items()]
    return b"".join(entries) + entry("TRAILER!!!", b"", 0)


def initramfs_with(base, script, files={}):
    """A temporary file: the initramfs, a script that the guest runs, and more files by name."""
    file = tempfile.NamedTemporaryFile(suffix=".cpio")
    with open(base, "rb") as original:
        data = original.read()
    file.write(data + bytes(-len(data) % 512) + cpio({"test.sh": script, **files}))
    file.flush()
    return file


def mount_disks(mib):
    """An ext4 filesystem for the disks: the bed's own is in memory, where the kernel does no
    read without a helper thread."""
    os.makedirs(DISKS, exist_ok=True)
    with open("/tmp/filesystem", "wb") as file:
        file.truncate(mib << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "/tmp/filesystem"], check=True)
    subprocess.run(["mount", "-o", "loop", "/tmp/filesystem", DISKS], check=True)


class Run:
    """One monitor's process and what its guest says."""

    def __init__(self, command):
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.output = b""

    def read(self, seconds):
        """Takes more output; an error if there is none within the time."""
        pipe = self.process.stdout.fileno()
        data = select.select([pipe], [], [], seconds)[0] and os.read(pipe, 65536)
        if not data:
            raise RuntimeError("the guest %s; its last words:\n%s" % (
                "ended" if data == b"" else "is silent",
                self.output.decode(errors="replace")[-2000:]))
        self.output += data

    def wait_for(self, line, seconds=120):
        while line not in self.output:
            self.read(seconds)
        return time.monotonic() - self.start

    def lines(self, seconds=120):
        """Each line as soon as it is whole."""
        while True:
            line, newline, rest = self.output.partition(b"\n")
            if newline:
                self.output = rest
                yield line.decode(errors="replace").strip()
            else:
                self.read(seconds)

    def send(self, text):
        """Sends keystrokes to the guest's console."""
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def end(self):
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def alone(runs, name):
    """That one of the runs; all others stand still. QEMU has timers even for a guest that idles:
    two of them take a tenth of the bed's CPU from whoever is measured beside them."""
    others = [run.process for other, run in runs.items() if other != name]
    try:
        for process in others:
            process.send_signal(signal.SIGSTOP)
        yield runs[name]
    finally:
        for process in others:
            process.send_signal(signal.SIGCONT)
