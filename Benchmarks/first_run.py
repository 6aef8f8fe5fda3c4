"""From exec to the first KVM_RUN, by the kernel's own trace events, and the CPU time until then.

Usage: first_run.py VMM GUEST-DIRECTORY QEMU. Prints JSON. Needs root and tracefs; without them the
result says why it is missing. The host's /dev/kvm may be a paravirtual one: it opens at native
speed, and nothing after the first KVM_RUN is counted.
"""

import json
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time

TRACE = "/sys/kernel/tracing/"
KVM_RUN = 0xAE80
ROUNDS = 12
EVENTS = ("events/syscalls/sys_enter_ioctl", "events/sched/sched_process_exec")


def write(path, text):
    with open(TRACE + path, "w") as file:
        file.write(text)


# One instruction that counts: it powers the machine off through port 0x600.
POWER_OFF = b"\x66\xba\x00\x06\xb0\x34\xee\xf4\xeb\xfd"


def tiny_kernel(path, code=POWER_OFF):
    """A PVH kernel of this code."""
    entry = 0x100000
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", entry)
    offset = 64 + 2 * 56
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0x1000, entry, entry, len(code), len(code), 0x1000)
    notes = struct.pack("<IIQQQQQQ", 4, 4, offset, 0, 0, len(note), len(note), 4)
    with open(path, "wb") as file:
        file.write((header + load + notes + note).ljust(0x1000, b"\0") + code)


def one(command):
    """Milliseconds from exec to the first KVM_RUN."""
    write("trace", "")
    write("tracing_on", "1")
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started = first = None
    deadline = time.monotonic() + 10
    while first is None and time.monotonic() < deadline:
        time.sleep(0.02)
        with open(TRACE + "trace") as trace:
            for line in trace:
                match = re.search(r"\s(\d+\.\d+): (\w+)", line)
                if not match:
                    continue
                if "sched_process_exec" in line and f" pid={process.pid} " in line:
                    started = float(match[1])
                elif started is not None and first is None and "ioctl" in match[2]:
                    first = float(match[1])
    process.kill()
    process.wait()
    write("tracing_on", "0")
    if started is None or first is None:
        raise RuntimeError(f"no KVM_RUN seen of {command}")
    return (first - started) * 1000


def cpu_to_exit(command):
    """CPU milliseconds of a whole run with a guest that powers off at once."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    return (usage.ru_utime + usage.ru_stime) * 1000


def swiftlet(vmm, kernel):
    return [vmm, "--kernel", kernel, "--cpus", "boot=1", "--memory", "size=128M",
            "--serial", "null", "--console", "off"]


def microvm(peer, kernel):
    """A like machine on QEMU, whose firmware then starts the kernel."""
    return [peer, "-M", "microvm,acpi=on,pit=off,pic=off,rtc=off",
            "-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", "128M", "-nodefaults",
            "-no-user-config", "-display", "none", "-kernel", kernel]


def measure(commands):
    """Times of several commands, taken in turn so that all meet the same machine."""
    times = [[] for _ in commands]
    for _ in range(ROUNDS):
        for command, list_ in zip(commands, times):
            list_.append(one(command))
    return [{"median_ms": statistics.median(list_), "min_ms": min(list_), "rounds": ROUNDS,
             "command": " ".join(command)} for command, list_ in zip(commands, times)]


def main(vmm, guest, peer):
    if not os.access(TRACE + "trace", os.W_OK):
        subprocess.run(["mount", "-t", "tracefs", "none", TRACE], check=False)
    if not os.access(TRACE + "trace", os.W_OK) or not os.access("/dev/kvm", os.W_OK):
        return {"missing": "needs root, tracefs and a /dev/kvm that opens"}
    write("trace_clock", "mono")
    write(EVENTS[0] + "/filter", f"cmd == {KVM_RUN}")
    for event in EVENTS:
        write(event + "/enable", "1")
    try:
        with tempfile.TemporaryDirectory() as directory:
            tiny = directory + "/tiny"
            tiny_kernel(tiny)
            results = {}
            for name, kernel in (("tiny", tiny), ("vmlinux", f"{guest}/vmlinux"),
                                 ("vmlinuz", f"{guest}/vmlinuz")):
                results[name], results[name]["microvm"] = measure(
                    [swiftlet(vmm, kernel), microvm(peer, kernel)])
                results[name]["bytes"] = os.path.getsize(kernel)
            command = [vmm, "--kernel", tiny, "--memory", "size=128M", "--serial", "null",
                       "--console", "off"]
            results["cpu_to_exit_ms"] = statistics.median(
                cpu_to_exit(command) for _ in range(ROUNDS))
            return results
    finally:
        for event in EVENTS:
            write(event + "/enable", "0")
        write(EVENTS[0] + "/filter", "0")


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:]), indent=1))
