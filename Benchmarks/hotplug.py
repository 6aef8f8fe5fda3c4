"""How long a guest takes to see a disk that is plugged in, and to let go of it: from the request to
its answer, and on to the event that the driver has taken the device, or that it has gone.

Runs inside the bed; called by Benchmarks/run.
"""

import argparse
import json
import socket
import subprocess
import threading
import time

from api import Client, spread
from guest import initramfs_with

ROUNDS = 30
WORDS = "console=ttyS0 quiet 8250.nr_uarts=1 reboot=k panic=-1"
SCRIPT = b"""#!/bin/sh
echo benchmark-guest: ready
read -r words
"""
READY = b"benchmark-guest: ready"
PATIENCE = 120


class Events:
    """When what happened: the lines of vm.events, as they come."""

    def __init__(self, path):
        self.arrived = threading.Condition()
        self.times = {}
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.sendall(b"GET /api/v1/vm.events HTTP/1.0\r\n\r\n")
        self.lines = self.socket.makefile("rb")
        while self.lines.readline() not in (b"\r\n", b""):
            pass
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.lines:
            now = time.perf_counter()
            event = json.loads(line)
            name = (event["event"], (event["properties"] or {}).get("id"))
            with self.arrived:
                self.times.setdefault(name, now)
                self.arrived.notify_all()

    def wait(self, event, device):
        with self.arrived:
            if not self.arrived.wait_for(lambda: (event, device) in self.times, PATIENCE):
                raise RuntimeError(f"no {event} of {device}")
            return self.times[event, device]


def measure(path):
    client, events = Client(path), Events(path)
    results = {"add": [], "seen": [], "gone": []}
    for index in range(ROUNDS):
        device = f"hot{index}"
        body = json.dumps({"path": "/tmp/hot", "image_type": "Raw", "id": device}).encode()
        results["add"].append(client.ask("PUT", "vm.add-disk", body))
        answered = time.perf_counter()
        results["seen"].append(events.wait("activated", device) - answered)
        started = time.perf_counter()
        client.ask("PUT", "vm.remove-device", json.dumps({"id": device}).encode())
        results["gone"].append(events.wait("device-removed", device) - started)
    return results


def main():
    parser = argparse.ArgumentParser()
    for option in ("guest", "work", "out", "vmm", "peer"):
        parser.add_argument("--" + option, required=True)
    arguments = parser.parse_args()
    with open("/tmp/hot", "wb") as file:
        file.truncate(16 << 20)
    initramfs = initramfs_with(arguments.work + "/initramfs", SCRIPT)
    monitor = subprocess.Popen(
        [arguments.vmm, "--api-socket", "/tmp/hotplug-api",
         "--landlock-rules", "path=/tmp,access=rw", "--kernel",
         arguments.guest + "/vmlinux", "--initramfs", initramfs.name, "--cmdline", WORDS, "--memory",
         "size=256M", "--serial", "tty", "--console", "off"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for line in monitor.stdout:
        if READY in line:
            break
    results = measure("/tmp/hotplug-api")
    monitor.kill()
    monitor.wait()
    with open(arguments.out, "w") as file:
        json.dump({f"hotplug_{name}_ms": spread(times) for name, times in results.items()},
                  file, indent=1)


if __name__ == "__main__":
    main()
