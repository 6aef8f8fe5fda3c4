"""Boots one kernel and initramfs under Swiftlet and QEMU in turn, inside the bed.

For each boot: seconds from exec to the first line of /init, and KVM's count of exits until then
(/sys/kernel/debug/kvm/exits; one machine runs at a time). Then, once for each monitor, the memory
of the process outside guest RAM and its threads, with a guest that has brought up a disk, a
network interface and a serial port and now idles.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time

INIT_LINE = b"swiftlet-guest: init"
READY_LINE = b"benchmark-guest: ready"
EXITS = "/sys/kernel/debug/kvm/exits"
DISKS = "/tmp/disks"
MIB = 256
WORDS = "console=ttyS0 quiet 8250.nr_uarts=1 reboot=k panic=-1"
IDLE_SCRIPT = b"""#!/bin/sh
dd if=/dev/vda of=/dev/null bs=64k count=16 2>/dev/null
ip link set eth0 up
echo benchmark-guest: ready
sleep 60
"""


def cpio(name, data):
    """An archive of one executable file in the format that the kernel unpacks (newc)."""
    def entry(name, data, mode):
        fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08x" % field for field in fields)
        head += name.encode() + b"\0"
        head += bytes(-len(head) % 4)
        return head + data + bytes(-len(data) % 4)
    return entry(name, data, 0o100755) + entry("TRAILER!!!", b"", 0)


def mount_disks():
    """An ext4 filesystem for the disks: the bed's own is in memory, where the kernel does no
    read without a helper thread."""
    os.makedirs(DISKS, exist_ok=True)
    with open("/tmp/filesystem", "wb") as file:
        file.truncate(512 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "/tmp/filesystem"], check=True)
    subprocess.run(["mount", "-o", "loop", "/tmp/filesystem", DISKS], check=True)


class Monitors:
    """The command line of each monitor for the same guest."""

    def __init__(self, arguments):
        self.vmm = arguments.vmm
        self.peer = arguments.peer
        self.kernel = arguments.guest + "/vmlinux"
        self.disk = arguments.work + "/disk"
        self.names = ["swiftlet", "microvm", "q35"]

    def command(self, name, initramfs, words=WORDS + " swiftlet=bench"):
        disk = f"{DISKS}/{name}"
        if not os.path.exists(disk):
            subprocess.run(["cp", self.disk, disk], check=True)
        if name == "swiftlet":
            return [self.vmm, "--kernel", self.kernel, "--initramfs", initramfs,
                    "--cpus", "boot=1", "--memory", f"size={MIB}M", "--serial", "tty",
                    "--console", "off", "--disk", f"path={disk},image_type=raw", "--net", "tap=bench0",
                    "--cmdline", words]
        bus = "device" if name == "microvm" else "pci"
        machine = "microvm,rtc=on" if name == "microvm" else "q35"
        return [self.peer, "-M", machine, "-enable-kvm", "-cpu", "host", "-m", str(MIB),
                "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none",
                "-serial", "stdio", "-no-reboot", "-kernel", self.kernel, "-initrd", initramfs,
                "-append", words,
                "-drive", f"id=d,file={disk},format=raw,if=none",
                "-device", f"virtio-blk-{bus},drive=d",
                "-netdev", "tap,id=n,ifname=bench0,script=no,downscript=no",
                "-device", f"virtio-net-{bus},netdev=n", "-device", f"virtio-rng-{bus}"]


class Run:
    """One process, read until a line appears."""

    def __init__(self, command):
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.output = b""

    def wait_for(self, line):
        while line not in self.output:
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise RuntimeError("no '%s' in:\n%s" % (
                    line.decode(), self.output.decode(errors="replace")[-2000:]))
            self.output += data
        return time.monotonic() - self.start

    def end(self):
        self.process.kill()
        self.process.wait()


def exits():
    with open(EXITS) as file:
        return int(file.read())


def boot(command):
    run = Run(command)
    try:
        seconds = run.wait_for(INIT_LINE)
        return {"seconds": seconds, "exits": exits()}
    finally:
        run.end()


def memory(pid):
    """KiB outside guest RAM: the mapping of the guest's size, or larger, is left out."""
    total = {"rss": 0, "private": 0, "anonymous": 0}
    counted = True
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            mapping = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+)\s*(\S*)", line)
            if mapping:
                size = int(mapping[2], 16) - int(mapping[1], 16)
                counted = not (size >= MIB << 20 and mapping[4] == "0")
            elif counted:
                key, _, value = line.partition(":")
                if key == "Rss":
                    total["rss"] += int(value.split()[0])
                elif key in ("Private_Clean", "Private_Dirty"):
                    total["private"] += int(value.split()[0])
                elif key == "Anonymous":
                    total["anonymous"] += int(value.split()[0])
    return total


def idle(command):
    run = Run(command)
    try:
        run.wait_for(READY_LINE)
        time.sleep(1)
        result = memory(run.process.pid)
        result["threads"] = len(os.listdir(f"/proc/{run.process.pid}/task"))
        return result
    finally:
        run.end()


def main():
    parser = argparse.ArgumentParser()
    for option in ("guest", "work", "out", "vmm", "peer"):
        parser.add_argument("--" + option, required=True)
    parser.add_argument("--pairs", type=int, default=10)
    arguments = parser.parse_args()
    mount_disks()
    monitors = Monitors(arguments)
    initramfs = arguments.work + "/initramfs"
    boots = {name: [] for name in monitors.names}
    for number in range(arguments.pairs):
        for name in monitors.names:
            result = boot(monitors.command(name, initramfs))
            boots[name].append(result)
            print(f"{number + 1:3} {name:9} {result['seconds']:6.2f} s {result['exits']:7} exits",
                  flush=True)
    with tempfile.NamedTemporaryFile(suffix=".cpio") as file:
        with open(initramfs, "rb") as base:
            data = base.read()
        file.write(data + bytes(-len(data) % 512) + cpio("test.sh", IDLE_SCRIPT))
        file.flush()
        rest = {name: idle(monitors.command(name, file.name, WORDS))
                for name in monitors.names}
    with open(arguments.out, "w") as file:
        json.dump({"boots": boots, "idle": rest, "ram_mib": MIB,
                   "kernel": os.uname().release}, file, indent=1)


if __name__ == "__main__":
    sys.exit(main())
