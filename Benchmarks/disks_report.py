"""Puts the disk measurements together: a table, JSON and an SVG plot.

Usage: disks_report.py DISKS DIRECTORY
"""

import json
import sys

from ratios import call_text, median, plot, ratio, write

OURS, THEIRS = "swiftlet", "qemu"


def title(cell):
    queues = "1 queue" if cell["queues"] == 1 else f"{cell['queues']} queues"
    return f"{cell['image']}, {queues}: {cell['job']}"


def rate(cell, name):
    """Requests each second, and of large ones megabytes."""
    if cell["bytes"] < 1 << 20:
        return f"{median(cell, name, 'iops'):.0f}"
    return f"{median(cell, name, 'mb_s'):.0f} MB"


def cell_table(cells):
    lines = ["| fio in the guest | Swiftlet /s | QEMU /s | ratio "
             "| latency µs, Swiftlet | QEMU | CPU µs a request, Swiftlet | QEMU | ratio "
             "| of I/O threads, Swiftlet | QEMU | ratio | exits a request, Swiftlet | QEMU |",
             "|---|" + "---|" * 13]
    for cell in cells:
        values = [rate(cell, OURS), rate(cell, THEIRS), f"{ratio(cell, OURS, THEIRS, 'iops'):.2f}"]
        values += [f"{median(cell, name, 'latency_us'):.0f}" for name in (OURS, THEIRS)]
        for key in ("cpu_us", "device_us"):
            values += [f"{median(cell, name, key):.0f}" for name in (OURS, THEIRS)]
            values += [f"{ratio(cell, OURS, THEIRS, key):.2f}"]
        values += [f"{median(cell, name, 'exits'):.2f}" for name in (OURS, THEIRS)]
        lines.append(f"| {title(cell)} | " + " | ".join(values) + " |")
    return lines


def call_table(cells):
    lines = ["| system calls a request, without ioctl | Swiftlet | QEMU | of Swiftlet | of QEMU |",
             "|---|" + "---|" * 4]
    for cell in cells:
        ours, theirs = (call_text(cell["calls"][name]) for name in (OURS, THEIRS))
        lines.append(f"| {title(cell)} | {ours[0]} | {theirs[0]} | {ours[1]} | {theirs[1]} |")
    return lines


def table(disks):
    cells = disks["cells"]
    lines = cell_table(cells)
    slower = sum(ratio(cell, OURS, THEIRS, "iops") < 1 for cell in cells)
    costly = sum(ratio(cell, OURS, THEIRS, "cpu_us") > 1 for cell in cells)
    cpus = ", ".join(sorted({f"{cell['cpus']} vCPUs with {cell['queues']} queue"
                             + ("s" if cell["queues"] > 1 else "") for cell in cells}))
    lines += [
        "", f"Rounds: {disks['rounds']}, {disks['seconds']} s a job, under the one monitor and at "
        "once under the other. Rates, latencies and CPU are medians; ratios are Swiftlet to QEMU, "
        "medians of paired rounds.",
        f"Guest: {disks['ram_mib']} MiB, {cpus}; fio with libaio and direct=1; a depth of 32 is "
        "that of all queues together. "
        f"Image: {disks['image_mib']} MiB, fully allocated, in the host's page cache, on ext4; "
        f"queue size {disks['queue_size']}.",
        "QEMU: q35, io_uring, one iothread, cache.direct=off. Swiftlet: its defaults.",
        "CPU is the process's user and system time without the guest's (/proc/PID/stat), which the "
        "kernel samples; that of the I/O threads, all but the vCPUs', is exact.",
        f"Swiftlet is slower in {slower} of {len(cells)} cells and takes more CPU in {costly}.",
        "", *call_table(disks["system_calls"])]
    return "\n".join(lines) + "\n"


def picture(cells):
    return plot("Swiftlet relative to QEMU",
                ["requests a second, more is better", "CPU a request, less is better"],
                [(title(cell), [ratio(cell, OURS, THEIRS, key) for key in ("iops", "cpu_us")])
                 for cell in cells])


def main(disks, directory):
    with open(disks) as file:
        disks = json.load(file)
    write(f"{directory}/disks", disks, table(disks), picture(disks["cells"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
