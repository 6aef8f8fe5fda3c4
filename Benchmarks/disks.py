"""fio in a guest under Swiftlet and QEMU in turn, inside the bed: raw and qcow2, 1 and 4 queues.

Both monitors get the same image, fully allocated and in the host's page cache, the same CPUs,
queues and queue size. QEMU has the best that it offers for this: io_uring, and an iothread that
keeps requests off its main loop; write-back caching, which is Swiftlet's default. Its machine is
q35, the one with PCI and MSI-X that its users have; the way of a request is the same in microvm.

Both guests are up at once, and one job runs at a time: under the one, then at once under the
other, while the one without work stands still. A machine that others share changes its speed
within minutes, and so would what is measured in one boot and then in another.

For each job: requests, bytes per second and mean latency as fio tells them; what the monitor's
process took in CPU time outside the guest, its I/O threads' part of that, and KVM's exits.
At the end, because counting slows them down, the system calls of the deep jobs, counted by the
kernel's tracepoint.
"""

import argparse
import json
import os
import subprocess
import sys

from guest import DISKS, Run, alone, initramfs_with, mount_disks
from usage import call_shares, counted_calls, difference, shares, system_calls, usage

RAM_MIB = 512
IMAGE_MIB = 128
QUEUE_SIZE = 256
DEEP = 32
WORDS = "console=ttyS0 quiet 8250.nr_uarts=1 reboot=k panic=-1"

# Name, fio's word, bytes of a request, requests in flight.
JOBS = [("random read 4k, depth 1", "randread", 4096, 1),
        ("random write 4k, depth 1", "randwrite", 4096, 1),
        (f"random read 4k, depth {DEEP}", "randread", 4096, DEEP),
        (f"random write 4k, depth {DEEP}", "randwrite", 4096, DEEP),
        ("sequential read 1M, depth 4", "read", 1 << 20, 4),
        ("sequential write 1M, depth 4", "write", 1 << 20, 4)]

SCRIPT = """#!/bin/sh
mount -t ext4 -o ro /dev/vdb /mnt || exit 1
mkdir /jobs
{jobs}
# A disk of one queue: the job runs where the interrupts arrive, under either monitor. Where that
# is is the guest kernel's choice, and the other CPU would cost an interrupt more each time.
device=$(basename "$(readlink /sys/block/vda/device)")
irq=$(sed -n "s/^ *\\([0-9]*\\):.*$device-req.0$/\\1/p" /proc/interrupts)
sed -i "s/@/$(cat "/proc/irq/$irq/effective_affinity_list")/" /jobs/*
stty -echo
echo fio-ready
while read -r job; do
    /mnt/lib/ld.so --library-path /mnt/lib /mnt/fio --eta=never --output-format=terse \\
        --terse-version=3 --output=/out "/jobs/$job" || exit 1
    # What fio says of the marks' commands is in the file too.
    sed -n 's/^3;/fio-result 3;/p' /out
    echo fio-done
done
"""

MARK = ["[mark]", "stonewall", "rw=read", "bs=4096", "number_ios=1",
        'exec_prerun=sh -c "echo fio-mark >/dev/console"']


def job_files(queues, seconds):
    """fio's inputs: before the job and after it, a job of one request that has the monitor's
    process sampled. A deep job has a thread for each queue, each on a CPU of its own: a guest's
    queue belongs to a CPU."""
    commands = []
    for number, (_, kind, size, depth) in enumerate(JOBS):
        threads = queues if depth == DEEP else 1
        lines = ["[global]", "filename=/dev/vda", "ioengine=libaio", "direct=1", "thread",
                 "group_reporting", "norandommap", "disable_slat=1", "disable_clat=1", *MARK,
                 f"[{number}]", "stonewall", f"rw={kind}", f"bs={size}",
                 f"iodepth={depth // threads}", f"numjobs={threads}",
                 f"cpus_allowed={'@' if threads == 1 else f'0-{threads - 1}'}",
                 "cpus_allowed_policy=split", "time_based", f"runtime={seconds}", *MARK]
        commands.append("\n".join([f"cat >/jobs/{number} <<'END'", *lines, "END"]))
    return "\n".join(commands)


def parse_result(line):
    """A line of fio's terse format, version 3: what the job did; None for a mark."""
    fields = line.split(";")
    if fields[2] == "mark":
        return None
    _, kind, size, _ = JOBS[int(fields[2])]
    part = fields[46:] if kind.endswith("write") else fields[5:]
    requests = int(part[0]) * 1024 / size
    seconds = int(part[3]) / 1000
    return {"requests": requests, "iops": requests / seconds,
            "mb_s": requests * size / seconds / 1e6, "latency_us": float(part[34])}


def make_images(monitors):
    """An image of each format for each monitor; no two MiB are a hole or zeros."""
    raw, qcow2 = f"{DISKS}/raw", f"{DISKS}/qcow2"
    piece = os.urandom(1 << 20)
    with open(raw, "wb") as file:
        for _ in range(IMAGE_MIB):
            file.write(piece)
    subprocess.run(["qemu-img", "convert", "-S", "0", "-f", "raw", "-O", "qcow2", raw, qcow2],
                   check=True)
    for image in (raw, qcow2):
        for name in monitors[1:]:
            subprocess.run(["cp", image, f"{image}.{name}"], check=True)
        os.rename(image, f"{image}.{monitors[0]}")


class Monitors:
    """The command line of each monitor for the same guest."""

    def __init__(self, arguments):
        self.vmm = arguments.vmm
        self.peer = arguments.peer
        self.kernel = arguments.guest + "/vmlinux"
        self.names = ["swiftlet", "qemu"]

    def command(self, name, image, queues, initramfs):
        cpus = cpus_of(queues)
        if name == "swiftlet":
            return [self.vmm, "--kernel", self.kernel, "--initramfs", initramfs,
                    "--cpus", f"boot={cpus}", "--memory", f"size={RAM_MIB}M", "--serial", "tty",
                    "--console", "off", "--cmdline", WORDS,
                    "--disk", f"path={DISKS}/{image}.{name},image_type={image},num_queues={queues},"
                    f"queue_size={QUEUE_SIZE}",
                    "--disk", f"path={DISKS}/tools.{name},image_type=raw,readonly=on"]
        file = f"driver=file,node-name=file,filename={DISKS}/{image}.{name},aio=io_uring"
        return [self.peer, "-M", "q35", "-enable-kvm", "-cpu", "host", "-m", str(RAM_MIB),
                "-smp", str(cpus), "-nodefaults", "-no-user-config",
                "-name", "benchmark,debug-threads=on", "-display", "none",
                "-serial", "stdio", "-no-reboot", "-kernel", self.kernel, "-initrd", initramfs,
                "-append", WORDS, "-object", "iothread,id=io",
                "-blockdev", file + ",cache.direct=off,cache.no-flush=off",
                "-blockdev", f"driver={image},node-name=disk,file=file",
                "-device", f"virtio-blk-pci,drive=disk,iothread=io,num-queues={queues},"
                f"queue-size={QUEUE_SIZE},write-cache=on",
                "-drive", f"id=tools,file={DISKS}/tools.{name},format=raw,if=none,readonly=on",
                "-device", "virtio-blk-pci,drive=tools"]


def cpus_of(queues):
    """A guest uses no more queues than it has CPUs."""
    return max(2, queues)


class Guests:
    """A guest under each monitor, on copies of one image, that run jobs when they are told."""

    def __init__(self, monitors, arguments, image, queues):
        self.commands = lambda initramfs: {
            name: monitors.command(name, image, queues, initramfs) for name in monitors.names}
        self.script = SCRIPT.format(jobs=job_files(queues, arguments.seconds)).encode()
        self.initramfs = arguments.initramfs
        self.runs = {}

    def start(self):
        with initramfs_with(self.initramfs, self.script) as file:
            for name, command in self.commands(file.name).items():
                self.runs[name] = Run(command)
            for run in self.runs.values():
                run.wait_for(b"fio-ready")

    def job(self, name, number, sample):
        """What fio says of the job, and by how much the samples before and after it differ."""
        with alone(self.runs, name) as run:
            return self.job_alone(run, number, sample)

    @staticmethod
    def job_alone(run, number, sample):
        os.sync()
        run.send(f"{number}\n")
        samples, result = [], None
        for line in run.lines():
            word, _, rest = line.partition(" ")
            if word == "fio-mark":
                samples.append(sample(run.process.pid))
            elif word == "fio-result":
                result = parse_result(rest) or result
            elif word == "fio-done":
                break
            elif word == "swiftlet-guest:" and "exit" in rest:
                raise RuntimeError("fio failed; " + line)
        if len(samples) != 2 or not result:
            raise RuntimeError(f"{len(samples)} marks and {result}")
        before, after = samples
        result["difference"] = difference(before, after)
        return result

    def end(self):
        for run in self.runs.values():
            run.end()


def with_guests(monitors, arguments, image, queues, body):
    """Guests with several CPUs break now and then in an emulated bed, under any monitor
    (docs/TESTING-BED.md): two more tries."""
    for attempt in (1, 2, 3):
        guests = Guests(monitors, arguments, image, queues)
        try:
            guests.start()
            return body(guests)
        except RuntimeError as error:
            print(f"attempt {attempt}: {error}", file=sys.stderr, flush=True)
        finally:
            guests.end()
    raise RuntimeError(f"three pairs of guests failed with {image} and {queues} queues")


def measure(monitors, arguments, image, queues, guests):
    """Each job under both monitors, again and again; the other one begins in every second round."""
    cells = {}
    for number, job in enumerate(JOBS):
        runs = cells[image, queues, number] = {name: [] for name in monitors.names}
        for turn in range(arguments.rounds):
            for name in monitors.names[::-1 if turn % 2 else 1]:
                result = guests.job(name, number, usage)
                result |= shares(result.pop("difference"), result["requests"])
                runs[name].append(result)
                print(f"{turn + 1:3} {image:5} {queues} {job[0]:28} {name:9}"
                      f"{result['iops']:9.0f} /s {result['latency_us']:9.0f} us "
                      f"{result['cpu_us']:7.0f} us CPU {result['device_us']:7.0f} of I/O "
                      f"{result['exits']:6.2f} exits", flush=True)
    return cells


def count_calls(monitors, image, queues, guests):
    calls = {}
    for number, job in enumerate(JOBS):
        if job[3] != DEEP:
            continue
        row = calls[image, queues, number] = {}
        for name in monitors.names:
            with counted_calls():
                result = guests.job(name, number, system_calls)
            row[name] = call_shares(result["difference"], result["requests"])
            print(f"calls {image} {queues} {job[0]} {name} " + " ".join(
                f"{call} {count:.3f}" for call, count in row[name].items()), flush=True)
    return calls


def rows(table, key):
    """A table by image, queues and job as a list that JSON can hold."""
    return [{"image": image, "queues": queues, "cpus": cpus_of(queues), "job": JOBS[job][0],
             "bytes": JOBS[job][2], key: values}
            for (image, queues, job), values in table.items() if all(values.values())]


def main():
    parser = argparse.ArgumentParser()
    for option in ("guest", "work", "out", "vmm", "peer"):
        parser.add_argument("--" + option, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--images", default="raw,qcow2")
    parser.add_argument("--queues", default="1,4")
    arguments = parser.parse_args()
    arguments.variants = [(image, int(queues)) for image in arguments.images.split(",")
                          for queues in arguments.queues.split(",")]
    arguments.initramfs = arguments.work + "/initramfs"
    mount_disks(5 * IMAGE_MIB + 384)
    monitors = Monitors(arguments)
    for name in monitors.names:
        subprocess.run(["cp", arguments.work + "/tools", f"{DISKS}/tools.{name}"], check=True)
    make_images(monitors.names)
    cells, calls = {}, {}
    for image, queues in arguments.variants:
        def both(guests):
            return (measure(monitors, arguments, image, queues, guests),
                    count_calls(monitors, image, queues, guests))
        measured, counted = with_guests(monitors, arguments, image, queues, both)
        cells.update(measured)
        calls.update(counted)
    with open(arguments.out, "w") as file:
        json.dump({"cells": rows(cells, "runs"), "system_calls": rows(calls, "calls"),
                   "rounds": arguments.rounds, "seconds": arguments.seconds,
                   "ram_mib": RAM_MIB, "image_mib": IMAGE_MIB, "queue_size": QUEUE_SIZE,
                   "kernel": os.uname().release}, file, indent=1)


if __name__ == "__main__":
    sys.exit(main())
