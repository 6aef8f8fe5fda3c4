"""How fast the API answers: pings, a machine's way from vm.create to vCPUs that run, pauses and
resumes with 4 vCPUs, and the CPU time from exec to a socket that answers.

Usage: api.py VMM. Prints JSON. Each request is one on a connection that is kept open; the client
is this script, so that its own time is part of each number.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from first_run import tiny_kernel

PINGS = 5000
STARTS = 20
BOOTS = 20
PAUSES = 50
# hlt, for ever.
HALT = b"\xf4\xeb\xfd"


class Client:
    """One connection; answers have a length or no body."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.input = self.socket.makefile("rb")

    def ask(self, method, name, body=b""):
        head = f"{method} /api/v1/{name} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        started = time.perf_counter()
        self.socket.sendall(head.encode() + body)
        status = int(self.input.readline().split()[1])
        length = 0
        while (line := self.input.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answer = self.input.read(length)
        seconds = time.perf_counter() - started
        if status >= 300:
            raise RuntimeError(f"{name}: {status} {answer.decode()}")
        return seconds


class Monitor:
    def __init__(self, vmm, directory):
        self.path = directory + "/api"
        self.process = subprocess.Popen([vmm, "--api-socket", self.path], cwd=directory)
        while True:
            try:
                self.client = Client(self.path)
                break
            except OSError:
                if self.process.poll() is not None:
                    raise RuntimeError("the monitor ended") from None
        self.client.ask("GET", "vmm.ping")

    def cpu_milliseconds(self):
        """User and system time so far, to the nanosecond where the kernel tells it."""
        with open(f"/proc/{self.process.pid}/schedstat") as file:
            main = int(file.read().split()[0])
        total = 0
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            with open(f"/proc/{self.process.pid}/task/{task}/schedstat") as file:
                total += int(file.read().split()[0])
        return max(main, total) / 1e6

    def end(self):
        self.client.ask("PUT", "vmm.shutdown")
        self.process.wait()


def spread(seconds):
    """Milliseconds: the median, and what 99 in 100 stay below."""
    values = sorted(seconds)
    return {"p50": 1000 * statistics.median(values),
            "p99": 1000 * values[min(len(values) - 1, len(values) * 99 // 100)]}


def machine(directory, vcpus):
    return json.dumps({
        "payload": {"kernel": directory + "/kernel"},
        "cpus": {"boot_vcpus": vcpus, "max_vcpus": vcpus}, "memory": {"size": 64 << 20},
        "serial": {"mode": "Null"}, "console": {"mode": "Off"}}).encode()


def boots(client, directory):
    """Seconds from vm.create to the answer of vm.boot, when all is open and the vCPUs run."""
    times = []
    for _ in range(BOOTS):
        times.append(client.ask("PUT", "vm.create", machine(directory, 1))
                     + client.ask("PUT", "vm.boot"))
        client.ask("PUT", "vm.delete")
    return times


def pauses(client, directory):
    client.ask("PUT", "vm.create", machine(directory, 4))
    client.ask("PUT", "vm.boot")
    paused, resumed = [], []
    for _ in range(PAUSES):
        paused.append(client.ask("PUT", "vm.pause"))
        resumed.append(client.ask("PUT", "vm.resume"))
    client.ask("PUT", "vm.delete")
    return paused, resumed


def main():
    vmm = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        tiny_kernel(directory + "/kernel", HALT)
        starts = []
        for _ in range(STARTS):
            monitor = Monitor(vmm, directory)
            starts.append(monitor.cpu_milliseconds())
            monitor.end()
        monitor = Monitor(vmm, directory)
        pings = [monitor.client.ask("GET", "vmm.ping") for _ in range(PINGS)]
        booted = boots(monitor.client, directory)
        paused, resumed = pauses(monitor.client, directory)
        monitor.end()
    json.dump({"socket_cpu_ms": statistics.median(starts), "ping_ms": spread(pings),
               "boot_ms": spread(booted), "pause_ms": spread(paused),
               "resume_ms": spread(resumed)}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
