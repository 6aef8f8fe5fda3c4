"""fio in a guest under Swiftlet and QEMU in turn, inside the bed: raw and qcow2, 1 and 4 queues.

Both monitors get the same image, fully allocated and in the host's page cache, the same CPUs,
queues and queue size. QEMU has the best that it offers for this: io_uring, and an iothread that
keeps requests off its main loop; write-back caching, which is Swiftlet's default. Its machine is
q35, the one with PCI and MSI-X that its users have; the way of a request is the same in microvm.

For each job: requests, bytes per second and mean latency as fio tells them; what the monitor's
process took in CPU time outside the guest, its I/O threads' part of that, and KVM's exits.
Then, in boots of their own because counting slows them down, the system calls of the deep jobs,
counted by the kernel's tracepoint.
"""

import argparse
import json
import os
import re
import subprocess
import sys

from guest import DISKS, Run, exits, initramfs_with, mount_disks

RAM_MIB = 512
IMAGE_MIB = 128
QUEUE_SIZE = 256
DEEP = 32
WORDS = "console=ttyS0 quiet 8250.nr_uarts=1 reboot=k panic=-1"
TRACE = "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter"
TRIGGER = "hist:keys=common_pid,id.syscall"

# Name, fio's word, bytes of a request, requests in flight.
JOBS = [("random read 4k, depth 1", "randread", 4096, 1),
        ("random write 4k, depth 1", "randwrite", 4096, 1),
        (f"random read 4k, depth {DEEP}", "randread", 4096, DEEP),
        (f"random write 4k, depth {DEEP}", "randwrite", 4096, DEEP),
        ("sequential read 1M, depth 4", "read", 1 << 20, 4),
        ("sequential write 1M, depth 4", "write", 1 << 20, 4)]

SCRIPT = """#!/bin/sh
mount -t ext4 -o ro /dev/vdb /mnt || exit 1
cat >/jobs <<'END'
{jobs}
END
/mnt/lib/ld.so --library-path /mnt/lib /mnt/fio --eta=never --output-format=terse \\
    --terse-version=3 --output=/out /jobs || exit 1
# What fio says of the marks' commands is in the file too.
sed -n 's/^3;/fio-result 3;/p' /out
echo fio-done
sleep 60
"""


def jobs_file(jobs, queues, seconds):
    """fio's input: before each job and after the last one, a job of one request that has the
    monitor's process sampled. A deep job has a thread for each queue, each on a CPU of its own: a
    guest's queue belongs to a CPU."""
    mark = ["[mark]", "stonewall", "rw=read", "bs=4096", "number_ios=1",
            'exec_prerun=sh -c "echo fio-mark >/dev/console"']
    lines = ["[global]", "filename=/dev/vda", "ioengine=libaio", "direct=1", "thread",
             "group_reporting", "norandommap", "disable_slat=1", "disable_clat=1"]
    for number in jobs:
        _, kind, size, depth = JOBS[number]
        threads = queues if depth == DEEP else 1
        lines += mark
        lines += [f"[{number}]", "stonewall", f"rw={kind}", f"bs={size}",
                  f"iodepth={depth // threads}", f"numjobs={threads}",
                  f"cpus_allowed=0-{threads - 1}", "cpus_allowed_policy=split",
                  "time_based", f"runtime={seconds}"]
    return "\n".join(lines + mark)


def parse_result(line):
    """A line of fio's terse format, version 3: the job's number and what it did; None for a
    mark."""
    fields = line.split(";")
    if fields[2] == "mark":
        return None
    number = int(fields[2])
    _, kind, size, _ = JOBS[number]
    part = fields[46:] if kind.endswith("write") else fields[5:]
    requests = int(part[0]) * 1024 / size
    seconds = int(part[3]) / 1000
    return number, {"requests": requests, "iops": requests / seconds,
                    "mb_s": requests * size / seconds / 1e6, "latency_us": float(part[34])}


def make_images():
    """One image of each format; no two MiB are a hole or zeros."""
    raw, qcow2 = f"{DISKS}/raw", f"{DISKS}/qcow2"
    piece = os.urandom(1 << 20)
    with open(raw, "wb") as file:
        for _ in range(IMAGE_MIB):
            file.write(piece)
    subprocess.run(["qemu-img", "convert", "-S", "0", "-f", "raw", "-O", "qcow2", raw, qcow2],
                   check=True)


class Monitors:
    """The command line of each monitor for the same guest."""

    def __init__(self, arguments):
        self.vmm = arguments.vmm
        self.peer = arguments.peer
        self.kernel = arguments.guest + "/vmlinux"
        self.tools = DISKS + "/tools"
        self.names = ["swiftlet", "qemu"]

    def command(self, name, image, queues, initramfs):
        cpus = cpus_of(queues)
        if name == "swiftlet":
            return [self.vmm, "--kernel", self.kernel, "--initramfs", initramfs,
                    "--cpus", f"boot={cpus}", "--memory", f"size={RAM_MIB}M", "--serial", "tty",
                    "--console", "off", "--cmdline", WORDS,
                    "--disk", f"path={DISKS}/{image},image_type={image},num_queues={queues},"
                    f"queue_size={QUEUE_SIZE}",
                    "--disk", f"path={self.tools},image_type=raw,readonly=on"]
        file = f"driver=file,node-name=file,filename={DISKS}/{image},aio=io_uring"
        return [self.peer, "-M", "q35", "-enable-kvm", "-cpu", "host", "-m", str(RAM_MIB),
                "-smp", str(cpus), "-nodefaults", "-no-user-config",
                "-name", "benchmark,debug-threads=on", "-display", "none",
                "-serial", "stdio", "-no-reboot", "-kernel", self.kernel, "-initrd", initramfs,
                "-append", WORDS, "-object", "iothread,id=io",
                "-blockdev", file + ",cache.direct=off,cache.no-flush=off",
                "-blockdev", f"driver={image},node-name=disk,file=file",
                "-device", f"virtio-blk-pci,drive=disk,iothread=io,num-queues={queues},"
                f"queue-size={QUEUE_SIZE},write-cache=on",
                "-drive", f"id=tools,file={self.tools},format=raw,if=none,readonly=on",
                "-device", "virtio-blk-pci,drive=tools"]


def cpus_of(queues):
    """A guest uses no more queues than it has CPUs."""
    return max(2, queues)


def monitor_cpu(pid):
    """Seconds of CPU time of all threads so far, without what the guest itself used."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    user, system, guest = int(fields[11]), int(fields[12]), int(fields[40])
    return (user + system - guest) / os.sysconf("SC_CLK_TCK")


def device_cpu(pid):
    """Seconds of CPU time so far of the living threads that are no vCPUs; the kernel counts it
    exactly, not by ticks as the guest's share."""
    total = 0
    for task in os.scandir(f"/proc/{pid}/task"):
        try:
            with open(task.path + "/comm") as name, open(task.path + "/schedstat") as times:
                if not re.match(r"vcpu\d|CPU \d", name.read()):
                    total += int(times.read().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass  # A worker of the kernel's that has ended.
    return total / 1e9


def usage(pid):
    return {"cpu_s": monitor_cpu(pid), "device_s": device_cpu(pid), "exits": exits()}


def system_calls(pid):
    """Counts by name of the process's threads, vCPUs among them, while the trigger is set."""
    threads = {int(name) for name in os.listdir(f"/proc/{pid}/task")}
    counts = {}
    with open(TRACE + "/hist") as file:
        for line in file:
            found = re.search(r"common_pid: +(\d+), id: sys_(\w+) .*hitcount: +(\d+)", line)
            if found and int(found[1]) in threads:
                counts[found[2]] = counts.get(found[2], 0) + int(found[3])
    return counts


def follow(run, sample):
    """Runs the guest's jobs to the end: for each what fio says, and by how much the samples
    before and after it differ."""
    samples, results = [], []
    for line in run.lines():
        word, _, rest = line.partition(" ")
        if word == "fio-mark":
            samples.append(sample(run.process.pid))
        elif word == "fio-result":
            results.append(parse_result(rest))
        elif word == "fio-done":
            break
        elif word == "swiftlet-guest:" and "exit" in rest:
            raise RuntimeError("fio failed; " + line)
    jobs = dict(filter(None, results))
    if len(samples) != len(jobs) + 1:
        raise RuntimeError(f"{len(samples)} marks of {len(jobs)} jobs")
    for result, before, after in zip(jobs.values(), samples, samples[1:]):
        result["difference"] = {key: value - before.get(key, 0) for key, value in after.items()}
    return jobs


def boot(command, sample):
    """One guest. Guests with several CPUs break now and then in an emulated bed, under any
    monitor (docs/TESTING-BED.md): two more tries."""
    for attempt in (1, 2, 3):
        os.sync()
        run = Run(command)
        try:
            return follow(run, sample)
        except RuntimeError as error:
            print(f"attempt {attempt}: {error}", file=sys.stderr, flush=True)
        finally:
            run.end()
    raise RuntimeError("three guests failed: " + " ".join(command))


def per_request(result):
    difference = result.pop("difference")
    result["cpu_us"] = difference["cpu_s"] * 1e6 / result["requests"]
    result["device_us"] = difference["device_s"] * 1e6 / result["requests"]
    result["exits"] = difference["exits"] / result["requests"]
    return result


def measure(monitors, arguments, cells):
    jobs = range(len(JOBS))
    for number in range(arguments.rounds):
        for image, queues in arguments.variants:
            script = SCRIPT.format(jobs=jobs_file(jobs, queues, arguments.seconds))
            # The other one begins in every second round.
            for name in monitors.names[::-1 if number % 2 else 1]:
                with initramfs_with(arguments.initramfs, script.encode()) as file:
                    results = boot(monitors.command(name, image, queues, file.name), usage)
                for job, result in sorted(results.items()):
                    result = per_request(result)
                    cells[image, queues, job][name].append(result)
                    print(f"{number + 1:3} {image:5} {queues} {JOBS[job][0]:28} {name:9}"
                          f"{result['iops']:9.0f} /s {result['latency_us']:9.0f} us "
                          f"{result['cpu_us']:7.0f} us CPU {result['device_us']:7.0f} of I/O "
                          f"{result['exits']:6.2f} exits", flush=True)


def count_calls(monitors, arguments, calls):
    deep = [number for number, job in enumerate(JOBS) if job[3] == DEEP]
    with open(TRACE + "/trigger", "w") as file:
        file.write(TRIGGER)
    for image, queues in arguments.variants:
        script = SCRIPT.format(jobs=jobs_file(deep, queues, arguments.seconds))
        for name in monitors.names:
            with initramfs_with(arguments.initramfs, script.encode()) as file:
                results = boot(monitors.command(name, image, queues, file.name), system_calls)
            for job, result in sorted(results.items()):
                counts = {call: count / result["requests"]
                          for call, count in result["difference"].items() if count > 0}
                calls[image, queues, job][name] = counts
                print(f"calls {image} {queues} {JOBS[job][0]} {name} " + " ".join(
                    f"{call} {count:.3f}" for call, count in counts.items()), flush=True)
    with open(TRACE + "/trigger", "w") as file:
        file.write("!" + TRIGGER)


def rows(table, key):
    """A table by image, queues and job as a list that JSON can hold."""
    return [{"image": image, "queues": queues, "cpus": cpus_of(queues), "job": JOBS[job][0],
             "bytes": JOBS[job][2], key: values}
            for (image, queues, job), values in table.items() if all(values.values())]


def main():
    parser = argparse.ArgumentParser()
    for option in ("guest", "work", "out", "vmm", "peer"):
        parser.add_argument("--" + option, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--images", default="raw,qcow2")
    parser.add_argument("--queues", default="1,4")
    arguments = parser.parse_args()
    arguments.variants = [(image, int(queues)) for image in arguments.images.split(",")
                          for queues in arguments.queues.split(",")]
    arguments.initramfs = arguments.work + "/initramfs"
    mount_disks(512)
    subprocess.run(["cp", arguments.work + "/tools", DISKS + "/tools"], check=True)
    make_images()
    monitors = Monitors(arguments)
    keys = [(image, queues, job) for image, queues in arguments.variants
            for job in range(len(JOBS))]
    cells = {key: {name: [] for name in monitors.names} for key in keys}
    calls = {key: {name: {} for name in monitors.names} for key in keys}
    measure(monitors, arguments, cells)
    count_calls(monitors, arguments, calls)
    with open(arguments.out, "w") as file:
        json.dump({"cells": rows(cells, "runs"), "system_calls": rows(calls, "calls"),
                   "rounds": arguments.rounds, "seconds": arguments.seconds,
                   "ram_mib": RAM_MIB, "image_mib": IMAGE_MIB, "queue_size": QUEUE_SIZE,
                   "kernel": os.uname().release}, file, indent=1)


if __name__ == "__main__":
    sys.exit(main())
