"""Puts the disk measurements together: a table, JSON and an SVG plot.

Usage: disks_report.py DISKS DIRECTORY
"""

import json
import statistics
import sys

OURS, THEIRS = "swiftlet", "qemu"
COLOURS = {"rate": "#d9480f", "cpu": "#364fc7"}


def median(cell, name, key):
    return statistics.median(run[key] for run in cell["runs"][name])


def ratio(cell, key):
    """The median of the ratios of runs that stood side by side."""
    return statistics.median(
        ours[key] / theirs[key] if theirs[key] else float("inf")
        for ours, theirs in zip(cell["runs"][OURS], cell["runs"][THEIRS]))


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
        values = [rate(cell, OURS), rate(cell, THEIRS), f"{ratio(cell, 'iops'):.2f}"]
        values += [f"{median(cell, name, 'latency_us'):.0f}" for name in (OURS, THEIRS)]
        for key in ("cpu_us", "device_us"):
            values += [f"{median(cell, name, key):.0f}" for name in (OURS, THEIRS)]
            values += [f"{ratio(cell, key):.2f}"]
        values += [f"{median(cell, name, 'exits'):.2f}" for name in (OURS, THEIRS)]
        lines.append(f"| {title(cell)} | " + " | ".join(values) + " |")
    return lines


def call_text(calls):
    """All calls but a vCPU's KVM_RUN, which are its exits; then the most frequent ones."""
    others = {name: count for name, count in calls.items() if name != "ioctl"}
    frequent = sorted(others.items(), key=lambda item: -item[1])
    names = ", ".join(f"{name} {count:.2f}" for name, count in frequent if count >= 0.01)
    return f"{sum(others.values()):.2f}", names


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
    slower = sum(ratio(cell, "iops") < 1 for cell in cells)
    costly = sum(ratio(cell, "cpu_us") > 1 for cell in cells)
    cpus = ", ".join(sorted({f"{cell['cpus']} vCPUs with {cell['queues']} queue"
                             + ("s" if cell["queues"] > 1 else "") for cell in cells}))
    lines += [
        "", f"Rounds: {disks['rounds']}, each monitor in turn, {disks['seconds']} s a job. Rates, "
        "latencies and CPU are medians; ratios are Swiftlet to QEMU, medians of paired rounds.",
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


def bars(cell, y):
    """Throughput and CPU relative to QEMU's, which is the line at 1."""
    parts = [f'<text x="312" y="{y + 15}" text-anchor="end">{title(cell)}</text>']
    for index, (key, colour) in enumerate((("iops", "rate"), ("cpu_us", "cpu"))):
        value = ratio(cell, key)
        top = y + 3 + index * 9
        width = 120 * min(value, 3)
        parts.append(f'<rect x="320" y="{top}" width="{width:.1f}" height="8" '
                     f'fill="{COLOURS[colour]}"/>')
        parts.append(f'<text x="{324 + width:.1f}" y="{top + 8}" font-size="9">{value:.2f}</text>')
    return parts


def plot(cells):
    height = 60 + 24 * len(cells)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" '
             'font-family="sans-serif" font-size="12">',
             f'<rect width="760" height="{height}" fill="#ffffff"/>',
             '<text x="320" y="20" font-weight="bold" font-size="13">Swiftlet relative to QEMU'
             '</text>',
             f'<rect x="320" y="30" width="10" height="10" fill="{COLOURS["rate"]}"/>',
             '<text x="334" y="39">requests a second, more is better</text>',
             f'<rect x="540" y="30" width="10" height="10" fill="{COLOURS["cpu"]}"/>',
             '<text x="554" y="39">CPU a request, less is better</text>']
    for index, cell in enumerate(cells):
        parts += bars(cell, 48 + 24 * index)
    parts.append(f'<line x1="440" y1="46" x2="440" y2="{height - 8}" stroke="#000000" '
                 'stroke-dasharray="3 3"/>')
    return "\n".join(parts + ["</svg>"]) + "\n"


def main(disks, directory):
    with open(disks) as file:
        disks = json.load(file)
    with open(directory + "/disks.json", "w") as file:
        json.dump(disks, file, indent=1)
        file.write("\n")
    text = table(disks)
    with open(directory + "/disks.md", "w") as file:
        file.write(text)
    with open(directory + "/disks.svg", "w") as file:
        file.write(plot(disks["cells"]))
    print(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
