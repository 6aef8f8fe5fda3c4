"""What monitors' processes have used: CPU time, KVM's exits, system calls."""

import contextlib
import glob
import os
import re

MACHINES = "/sys/kernel/debug/kvm"
TRACE = "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter"
TRIGGER = "hist:keys=common_pid,id.syscall"


def monitor_cpu(pid):
    """Seconds of CPU time of all threads so far, without what the guest itself used."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    user, system, guest = int(fields[11]), int(fields[12]), int(fields[40])
    return (user + system - guest) / os.sysconf("SC_CLK_TCK")


def device_cpu(pid):
    """Seconds of CPU time so far of the living threads that are no vCPUs, vhost's among them; the
    kernel counts it exactly, not by ticks as the guest's share."""
    total = 0
    for task in os.scandir(f"/proc/{pid}/task"):
        try:
            with open(task.path + "/comm") as name, open(task.path + "/schedstat") as times:
                if not re.match(r"vcpu\d|CPU \d", name.read()):
                    total += int(times.read().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass  # A worker of the kernel's that has ended.
    return total / 1e9


def exits(pid="*"):
    """KVM's count of a process's machine, or of all there are."""
    total = 0
    for name in glob.glob(f"{MACHINES}/{pid}-*/exits"):
        with open(name) as file:
            total += int(file.read())
    return total


def usage(*pids):
    """So far, of all these processes together."""
    return {"cpu_s": sum(map(monitor_cpu, pids)), "device_s": sum(map(device_cpu, pids)),
            "exits": sum(map(exits, pids))}


def difference(before, after):
    return {key: value - before.get(key, 0) for key, value in after.items()}


def shares(used, count):
    """What each of `count` requests, packets or bytes has cost."""
    return {"cpu_us": used["cpu_s"] * 1e6 / count, "device_us": used["device_s"] * 1e6 / count,
            "exits": used["exits"] / count}


@contextlib.contextmanager
def counted_calls():
    """While this lasts the kernel counts system calls, and everything is slower."""
    try:
        with open(TRACE + "/trigger", "w") as file:
            file.write(TRIGGER)
        yield
    finally:
        with open(TRACE + "/trigger", "w") as file:
            file.write("!" + TRIGGER)


def system_calls(*pids):
    """Counts by name of the processes' threads, vCPUs among them, within `counted_calls`."""
    threads = {int(name) for pid in pids for name in os.listdir(f"/proc/{pid}/task")}
    counts = {}
    with open(TRACE + "/hist") as file:
        for line in file:
            found = re.search(r"common_pid: +(\d+), id: sys_(\w+) .*hitcount: +(\d+)", line)
            if found and int(found[1]) in threads:
                counts[found[2]] = counts.get(found[2], 0) + int(found[3])
    return counts


def call_shares(counts, count):
    """System calls by name that each of `count` requests, packets or bytes has cost."""
    return {call: number / count for call, number in counts.items() if number > 0}
