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
import time

from guest import DISKS, Run, initramfs_with, mount_disks
from usage import exits

INIT_LINE = b"swiftlet-guest: init"
READY_LINE = b"benchmark-guest: ready"
MIB = 256
WORDS = "console=ttyS0 quiet 8250.nr_uarts=1 reboot=k panic=-1"
IDLE_SCRIPT = b"""#!/bin/sh
dd if=/dev/vda of=/dev/null bs=64k count=16 2>/dev/null
ip link set eth0 up
echo benchmark-guest: ready
sleep 60
"""


class Monitors:
    """The command line of each monitor for the same guest."""

    def __init__(self, arguments):
        self.vmm = arguments.vmm
        self.peer = arguments.peer
        self.kernel = arguments.guest + "/vmlinux"
        self.disk = arguments.work + "/disk"
        # The second is the first without filters, landlock and all else that confines it.
        self.names = ["swiftlet", "unconfined", "microvm", "q35"]

    def command(self, name, initramfs, words=WORDS + " swiftlet=bench"):
        disk = f"{DISKS}/{name}"
        if not os.path.exists(disk):
            subprocess.run(["cp", self.disk, disk], check=True)
        if name in ("swiftlet", "unconfined"):
            switches = [] if name == "swiftlet" else ["--seccomp", "false", "--landlock", "off"]
            return [self.vmm, *switches, "--kernel", self.kernel, "--initramfs", initramfs,
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
    mount_disks(512)
    monitors = Monitors(arguments)
    initramfs = arguments.work + "/initramfs"
    boots = {name: [] for name in monitors.names}
    for number in range(arguments.pairs):
        for name in monitors.names:
            result = boot(monitors.command(name, initramfs))
            boots[name].append(result)
            print(f"{number + 1:3} {name:9} {result['seconds']:6.2f} s {result['exits']:7} exits",
                  flush=True)
    with initramfs_with(initramfs, IDLE_SCRIPT) as file:
        rest = {name: idle(monitors.command(name, file.name, WORDS))
                for name in monitors.names}
    with open(arguments.out, "w") as file:
        json.dump({"boots": boots, "idle": rest, "ram_mib": MIB,
                   "kernel": os.uname().release}, file, indent=1)


if __name__ == "__main__":
    sys.exit(main())
