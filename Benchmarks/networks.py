"""Networks and vsock of a guest under Swiftlet and QEMU in turn, inside the bed; then two guests
through `swiftlet switch` and through a Linux bridge.

Both monitors attach to taps of the same kind, made beforehand, with the same guest, CPUs and
queues. QEMU is measured twice: with its own virtio-net in userspace (vhost=off), and with the
kernel's (vhost=on), whose vsock is the kernel's too. Its machine is q35, the one with PCI and
MSI-X. All guests live at once and only one of them has work: so that a short job under one monitor
and the same job under the next one are seconds apart, and a busy host slows both.

TCP throughput is iperf3's, as the receiver tells it. Packets, round trips and vsock are made by
Tools/guest/traffic.c on both ends: iperf3 sends one datagram a system call and looks at the clock
each time, which in the bed costs more than the device. Datagrams count when they have arrived.
The monitors that have no work are stopped meanwhile (`guest.alone`).

For each job: the rate; what the monitor's process took in CPU time outside the guest, its I/O
threads' part of that (vhost's worker is one of them), and KVM's exits, for each packet, round trip
or million bytes. Then, in boots of their own because counting slows them down, the system calls.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time

from guest import DISKS, Run, alone, initramfs_with, mount_disks
from usage import call_shares, counted_calls, difference, shares, system_calls, usage

RAM_MIB = 256
MAC = "52:54:00:00:00:"
PORT = 7000
SOCKET, LAN = "/tmp/vsock", "/tmp/lan"
WORDS = "console=ttyS0 quiet 8250.nr_uarts=1 reboot=k panic=-1"
# A payload of 18 bytes makes a frame of 60, which with its checksum is Ethernet's least, 64.
SMALL = 18

# TCP makes frames of what it expects to send within a millisecond. At the speed of hardware these
# are the largest that there are; at the bed's the smaller they are the slower it gets, and the
# slower the smaller: one run is a multiple of the other. So both ends make large ones.
SEGMENTS = 44

# Serves, and runs what it is told by the console.
SCRIPT = f"""#!/bin/sh
mount -t ext4 -o ro /dev/vda /mnt || exit 1
echo {SEGMENTS} >/proc/sys/net/ipv4/tcp_min_tso_segs
run() {{ program=$1; shift; /mnt/lib/ld.so --library-path /mnt/lib /mnt/$program "$@"; }}
iperf() {{
    run iperf3 -c "$1" -t "$2" -J >/out
    sed -n '/"sum_received"/,/}}/s/.*"bytes":[^0-9]*\\([0-9]*\\).*/{{"bytes": \\1, /p' /out
    echo '"seconds":' "$2}}"
}}
queues=$(ls -d /sys/class/net/eth0/queues/rx-* | wc -l)
[ "$queues" = 1 ] || run ethtool -L eth0 combined "$queues" || exit 1
run iperf3 -s >/dev/null &
until netstat -ltn | grep -q :5201; do sleep 0.1; done
stty -echo
/traffic serve {PORT} &
while read -r words; do echo "result" $(eval "$words"); done
"""


class Job:
    """What is measured, and in what unit."""

    def __init__(self, name, unit, measure, is_vsock=False):
        self.name, self.unit, self.measure, self.is_vsock = name, unit, measure, is_vsock


def iperf(*words):
    def measure(bench, guest):
        flows = str(4 if bench.pairs > 1 else 1)
        output = subprocess.run(
            ["iperf3", "-c", guest.address, "-J", "-t", str(bench.seconds), "-P", flows, *words],
            capture_output=True, check=True, timeout=60).stdout
        received = json.loads(output)["end"]["sum_received"]
        return {"amount": received["bytes"] / 1e6, "seconds": received["seconds"]}
    return measure


def amounts(result):
    """The amount and its time, whatever it is an amount of."""
    for key, divisor in (("bytes", 1e6), ("packets", 1), ("trips", 1)):
        if result.get(key):
            return {"amount": result.pop(key) / divisor, **result}
    raise RuntimeError(f"nothing arrived: {result}")


def traffic(action, *words, vsock=False):
    def measure(bench, guest):
        address = guest.vsock if vsock else f"tcp:{guest.address}:{PORT}"
        output = subprocess.run(
            [bench.traffic, action, address, str(bench.seconds * 1000), *words],
            capture_output=True, timeout=60).stdout
        try:
            return amounts(json.loads(output))
        except ValueError as error:
            raise RuntimeError(f"{action}: {output}") from error
    return measure


JOBS = [Job("TCP, host to guest", "MB", iperf()),
        Job("TCP, guest to host", "MB", iperf("-R")),
        Job("UDP of 64 bytes, host to guest", "packets", traffic("flood", str(SMALL))),
        Job("UDP of 64 bytes, guest to host", "packets", traffic("drain", str(SMALL))),
        Job("TCP round trip of 1 byte", "trips", traffic("ping")),
        Job("vsock, host to guest", "MB", traffic("push", vsock=True), True),
        Job("vsock, guest to host", "MB", traffic("pull", vsock=True), True),
        Job("vsock round trip of 1 byte", "trips", traffic("ping", vsock=True), True),
        Job("vsock connection and round trip", "trips", traffic("connect", vsock=True), True)]

# Between guests: what the one is told to do with the other.
PAIR_JOBS = [("TCP", "MB", "iperf {0} {1}"),
             ("UDP of 64 bytes", "packets",
              f"/traffic flood tcp:{{0}}:{PORT} {{1}}000 {SMALL}"),
             ("TCP round trip of 1 byte", "trips", f"/traffic ping tcp:{{0}}:{PORT} {{1}}000")]
# By switches: with offloads as on a tap, whose guests leave segmentation to each other and so send
# 64 KiB at once; and with finished packets of Ethernet's size.
SWITCHED = {"switch": ",vnet_hdr=on", "plain": ""}
LINKS = [*SWITCHED, "bridge"]


class Guest(Run):
    """A guest that serves and listens to its console."""

    def __init__(self, command, address, vsock=None):
        super().__init__(command)
        self.address, self.vsock = address, vsock

    def tell(self, words):
        """Has the guest do something, and returns what it says."""
        self.send(words + "\n")
        for line in self.lines():
            if line.startswith("result "):
                return amounts(json.loads(line.removeprefix("result ")))


class Bench:
    """The command lines of the monitors, and what a job has to know."""

    names = ["swiftlet", "qemu", "vhost"]

    def __init__(self, arguments):
        self.arguments = arguments
        self.kernel = arguments.guest + "/vmlinux"
        self.tools = DISKS + "/tools"
        self.traffic = arguments.work + "/traffic"
        self.seconds = arguments.seconds
        self.pairs = 1

    def initramfs(self):
        with open(self.traffic, "rb") as file:
            program = file.read()
        return initramfs_with(
            self.arguments.work + "/initramfs", SCRIPT.encode(), {"traffic": program})

    def swiftlet(self, initramfs, address, *words):
        return [self.arguments.vmm, "--kernel", self.kernel, "--initramfs", initramfs,
                "--cpus", f"boot={self.pairs}", "--memory", f"size={RAM_MIB}M",
                "--serial", "tty", "--console", "off",
                "--cmdline", f"{WORDS} swiftlet.ip={address}/24",
                "--disk", f"path={self.tools},image_type=raw,readonly=on", *words]

    def qemu(self, initramfs, address, *words):
        return [self.arguments.peer, "-M", "q35", "-enable-kvm", "-cpu", "host",
                "-m", str(RAM_MIB), "-smp", str(self.pairs), "-nodefaults", "-no-user-config",
                "-name", "benchmark,debug-threads=on", "-display", "none", "-serial", "stdio",
                "-no-reboot", "-kernel", self.kernel, "-initrd", initramfs,
                "-append", f"{WORDS} swiftlet.ip={address}/24",
                "-drive", f"id=tools,file={self.tools},format=raw,if=none,readonly=on,"
                "file.locking=off",
                "-device", "virtio-blk-pci,drive=tools", *words]

    def start(self, name, initramfs):
        """A guest on a tap, with a vsock device."""
        number = self.names.index(name)
        net, mac = tap(name, self.pairs), f"{MAC}0{number}"
        address, cid = f"192.168.{240 + number}.2", 42 + number
        if name == "swiftlet":
            command = self.swiftlet(
                initramfs, address, "--vsock", f"cid={cid},socket={SOCKET}",
                "--net", f"tap={net},mac={mac},num_queues={2 * self.pairs}")
            return Guest(command, address, f"unix:{SOCKET}:{PORT}")
        queues = f",mq=on,vectors={2 * self.pairs + 2}" if self.pairs > 1 else ""
        command = self.qemu(
            initramfs, address, "-netdev",
            f"tap,id=net,ifname={net},script=no,downscript=no,queues={self.pairs},"
            f"vhost={'on' if name == 'vhost' else 'off'}",
            "-device", f"virtio-net-pci,netdev=net,mac={mac}{queues}",
            "-device", f"vhost-vsock-pci,guest-cid={cid}")
        return Guest(command, address, f"vsock:{cid}:{PORT}")


def tap(name, pairs):
    return f"{name}{pairs}"


def ip(words):
    subprocess.run(["ip", *words.split()], check=True)


def make_taps(pairs):
    for number, name in enumerate(Bench.names):
        ip(f"tuntap add dev {tap(name, pairs)} mode tap vnet_hdr"
           + (" multi_queue" if pairs > 1 else ""))
        ip(f"address add 192.168.{240 + number}.1/24 dev {tap(name, pairs)}")
        ip(f"link set {tap(name, pairs)} up")


def remove_taps(pairs):
    for name in Bench.names:
        ip(f"link delete {tap(name, pairs)}")


@contextlib.contextmanager
def guests(bench):
    """One under each monitor, by name."""
    running = {}
    with bench.initramfs() as file, contextlib.ExitStack() as stack:
        for name in bench.names:
            running[name] = bench.start(name, file.name)
            stack.callback(running[name].end)
        for guest in running.values():
            guest.wait_for(b"\nready")
        yield running


def attempts(count, session):
    """Calls `session` for each round that is still to be done, until it has done them all. Guests
    break now and then in an emulated bed, under any monitor (docs/TESTING-BED.md): then two more
    times."""
    rounds = list(range(count))
    for _ in range(3):
        try:
            session(rounds)
            return
        except (RuntimeError, subprocess.SubprocessError) as error:
            print(f"rounds {rounds} are left: {error}", file=sys.stderr, flush=True)
    raise RuntimeError("guests failed three times")


def jobs_of(name, pairs):
    """QEMU in userspace has no vsock of its own, and vsock knows nothing of pairs."""
    return [job for job in JOBS if not job.is_vsock or (name != "qemu" and pairs == 1)]


def line(title, unit, name, result):
    return (f"{title:40} {name:9}{result['rate']:12.1f} {unit}/s {result.get('mean_us', 0):8.0f} us"
            f" {result['cpu_us']:8.1f} us CPU {result['device_us']:8.1f} of I/O "
            f"{result['exits']:7.3f} exits")


def sampled(action, pids, sample, share):
    """What an action tells of itself and what it costs."""
    before = sample(*pids)
    result = action()
    used = difference(before, sample(*pids))
    result["rate"] = result["amount"] / result["seconds"]
    return {**result, **share(used, result["amount"])}


def do_job(bench, running, name, job, sample, share):
    with alone(running, name) as guest:
        return sampled(
            lambda: job.measure(bench, guest), [guest.process.pid], sample, share)


def do_jobs(bench, running, names, sample, share):
    """Each job under one monitor after the other; the results by job and monitor."""
    return {(job.name, name): do_job(bench, running, name, job, sample, share)
            for job in JOBS for name in names if job in jobs_of(name, bench.pairs)}


def measure(bench, cells):
    def session(rounds):
        with guests(bench) as running:
            while rounds:
                # Another one begins in every round.
                first = rounds[0] % len(bench.names)
                names = bench.names[first:] + bench.names[:first]
                results = do_jobs(bench, running, names, usage, shares)
                for (job, name), result in results.items():
                    cell = cells[bench.pairs, job]
                    cell["runs"][name].append(result)
                    print(f"{rounds[0] + 1:3} {bench.pairs}",
                          line(job, cell["unit"], name, result), flush=True)
                rounds.pop(0)

    attempts(bench.arguments.rounds, session)


def count_calls(bench, cells):
    def share(used, count):
        return {"calls": call_shares(used, count)}

    def session(rounds):
        with guests(bench) as running, counted_calls():
            results = do_jobs(bench, running, bench.names, system_calls, share)
        for (job, name), result in results.items():
            cells[bench.pairs, job]["calls"][name] = result["calls"]
            print(f"calls {job} {name} " + " ".join(
                f"{call} {count:.3f}" for call, count in result["calls"].items()), flush=True)

    attempts(1, session)


# Two guests.

def make_bridge():
    ip("link add bench-bridge type bridge")
    for name in ("bench-a", "bench-b"):
        ip(f"tuntap add dev {name} mode tap vnet_hdr")
        ip(f"link set {name} master bench-bridge up")
    ip("link set bench-bridge up")


@contextlib.contextmanager
def switch(bench, socket, *words):
    process = subprocess.Popen([bench.arguments.tool, "switch", "--socket", socket, *words])
    try:
        while not os.path.exists(socket):
            if process.poll() is not None:
                raise RuntimeError("no switch")
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def guest_pairs(bench):
    """Two guests on each kind of link, and the processes that work for it, by the link's name."""
    words = {kind: [f"backend=socket,path={LAN}-{kind}{options}"] * 2
             for kind, options in SWITCHED.items()}
    words["bridge"] = [f"tap=bench-{end}" for end in "ab"]
    words = {kind: words[kind] for kind in LINKS}
    pairs, pids = {}, {}
    with bench.initramfs() as file, contextlib.ExitStack() as stack:
        switches = {kind: stack.enter_context(switch(
            bench, f"{LAN}-{kind}", *(["--vnet-hdr"] if options else [])))
            for kind, options in SWITCHED.items() if kind in LINKS}
        for index, (kind, links) in enumerate(words.items()):
            pairs[kind] = []
            for number, link in enumerate(links):
                address = f"192.168.{230 + index}.{number + 1}"
                mac = f"{MAC}{index + 1}{number}"
                pairs[kind].append(Guest(
                    bench.swiftlet(file.name, address, "--net", f"{link},mac={mac}"), address))
                stack.callback(pairs[kind][-1].end)
        for kind in words:
            for guest in pairs[kind]:
                guest.wait_for(b"\nready")
            pids[kind] = [guest.process.pid for guest in pairs[kind]]
            pids[kind] += [switches[kind].pid] if kind in switches else []
        yield pairs, pids


def measure_pairs(bench, cells):
    def session(rounds):
        with guest_pairs(bench) as (pairs, pids):
            while rounds:
                kinds = LINKS[::-1 if rounds[0] % 2 else 1]
                results = {(name, kind): sampled(
                    lambda: pairs[kind][0].tell(
                        words.format(pairs[kind][1].address, bench.seconds)),
                    pids[kind], usage, shares) for name, _, words in PAIR_JOBS for kind in kinds}
                for (name, kind), result in results.items():
                    cell = cells["two guests", name]
                    cell["runs"][kind].append(result)
                    print(f"{rounds[0] + 1:3}", line(name, cell["unit"], kind, result), flush=True)
                rounds.pop(0)

    attempts(bench.arguments.rounds, session)


def empty_cells(variants):
    cells = {(pairs, job.name): {
        "pairs": pairs, "job": job.name, "unit": job.unit, "is_vsock": job.is_vsock,
        "runs": {name: [] for name in Bench.names if job in jobs_of(name, pairs)}, "calls": {}}
        for pairs in variants for job in JOBS}
    cells |= {("two guests", name): {
        "pairs": 1, "job": name, "unit": unit, "is_vsock": False,
        "runs": {kind: [] for kind in LINKS}, "calls": {}} for name, unit, _ in PAIR_JOBS}
    return cells


def main():
    parser = argparse.ArgumentParser()
    for option in ("guest", "work", "out", "vmm", "tool", "peer"):
        parser.add_argument("--" + option, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--pairs", default="1,2")
    parser.add_argument("--parts", default="guest,calls,pair")
    parser.add_argument("--jobs", default="", help="only those with this in their name")
    parser.add_argument("--links", default=",".join(LINKS), help="of two guests")
    arguments = parser.parse_args()
    LINKS[:] = arguments.links.split(",")
    PAIR_JOBS[:] = [job for job in PAIR_JOBS if arguments.jobs in job[0]]
    JOBS[:] = [job for job in JOBS if arguments.jobs in job.name]
    arguments.variants = [int(pairs) for pairs in arguments.pairs.split(",")]
    mount_disks(256)
    with open("/proc/sys/net/ipv4/tcp_min_tso_segs", "w", encoding="ascii") as file:
        file.write(str(SEGMENTS))
    subprocess.run(["cp", arguments.work + "/tools", DISKS + "/tools"], check=True)
    bench = Bench(arguments)
    cells = empty_cells(arguments.variants)
    for bench.pairs in arguments.variants:
        make_taps(bench.pairs)
        if "guest" in arguments.parts:
            measure(bench, cells)
            save(arguments, cells)
        if "calls" in arguments.parts and bench.pairs == 1:
            count_calls(bench, cells)
            save(arguments, cells)
        remove_taps(bench.pairs)
    bench.pairs = 1
    if "pair" in arguments.parts:
        make_bridge()
        measure_pairs(bench, cells)
        save(arguments, cells)


def save(arguments, cells):
    """After each part: what was measured stays if a later part fails."""
    with open(arguments.out, "w") as file:
        json.dump({"cells": [cell for cell in cells.values() if any(cell["runs"].values())],
                   "rounds": arguments.rounds, "seconds": arguments.seconds, "ram_mib": RAM_MIB,
                   "kernel": os.uname().release}, file, indent=1)


if __name__ == "__main__":
    sys.exit(main())
