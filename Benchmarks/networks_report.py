"""Puts the network measurements together: tables, JSON and an SVG plot.

Usage: networks_report.py NETWORKS FRAMES DIRECTORY
"""

import json
import sys

from ratios import call_text, median, plot, ratio, write

NAMES = {"swiftlet": "Swiftlet", "qemu": "QEMU", "vhost": "vhost", "switch": "switch",
         "plain": "switch without offloads", "bridge": "bridge"}
# Ours, theirs, and what the ratio of rates should be at least.
TARGETS = {"guest": [("swiftlet", "qemu", 1.2), ("swiftlet", "vhost", 0.8)],
           "vsock": [("swiftlet", "vhost", 0.8)],
           "pair": [("switch", "bridge", 0.7)]}
TITLES = {"guest": "A guest and its host by a tap; QEMU with vhost=off, and with vhost=on",
          "vsock": "vsock; QEMU with the kernel's, vhost-vsock-pci",
          "pair": "Two guests: by `swiftlet switch`, and by taps on a Linux bridge"}


def kind(cell):
    if "switch" in cell["runs"]:
        return "pair"
    return "vsock" if cell["is_vsock"] else "guest"


def title(cell):
    pairs = "" if cell["pairs"] == 1 else f"{cell['pairs']} pairs of queues: "
    return pairs + cell["job"]


def unit(cell):
    return {"MB": "MB", "packets": "packet", "trips": "trip"}[cell["unit"]]


def share(cell, name, key):
    value = median(cell, name, key)
    return f"{value:.3f}" if value < 1 else f"{value:.1f}"


def rates(cells, which):
    targets = TARGETS[which]
    names = list(cells[0]["runs"])
    head = [""] + [f"{NAMES[name]}, unit/s" for name in names]
    head += [f"{NAMES[ours]} to {NAMES[theirs]}, target {target}"
             for ours, theirs, target in targets]
    head += [f"latency µs mean, 99 %: {NAMES[name]}" for name in names]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---|" * (len(head) - 1)]
    for cell in cells:
        values = [f"{title(cell)}, {cell['unit']}"]
        values += [f"{median(cell, name, 'rate'):.0f}" for name in names]
        values += [f"{ratio(cell, ours, theirs, 'rate'):.2f}" for ours, theirs, _ in targets]
        values += [f"{median(cell, name, 'mean_us'):.0f}, {median(cell, name, 'p99_us'):.0f}"
                   if cell["unit"] == "trips" else "" for name in names]
        lines.append("| " + " | ".join(values) + " |")
    return lines


def costs(cells):
    names = list(cells[0]["runs"])
    keys = (("cpu_us", "CPU µs"), ("device_us", "of I/O threads µs"), ("exits", "KVM exits"))
    head = ["for each"] + [f"{text}: {NAMES[name]}" for _, text in keys for name in names]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---|" * (len(head) - 1)]
    for cell in cells:
        values = [f"{unit(cell)} of {title(cell)}"]
        values += [share(cell, name, key) for key, _ in keys for name in names]
        lines.append("| " + " | ".join(values) + " |")
    return lines


def calls(cells):
    counted = [cell for cell in cells if cell["calls"]]
    if not counted:
        return []
    lines = ["| system calls, without ioctl | | all | of these |", "|---|---|---|---|"]
    for cell in counted:
        for name, counts in cell["calls"].items():
            total, names = call_text(counts)
            lines.append(f"| {NAMES[name]} | {unit(cell)} of {title(cell)} | {total} | {names} |")
    return [""] + lines


def verdict(cells):
    """All that misses its target, by name."""
    missed = []
    for cell in cells:
        for ours, theirs, target in TARGETS[kind(cell)]:
            value = ratio(cell, ours, theirs, "rate")
            if value < target:
                missed.append(f"- {title(cell)}, {NAMES[ours]}: {value:.2f} of {NAMES[theirs]}, "
                              f"not {target}")
    return ["Missed targets:", "", *missed] if missed else ["No target is missed."]


def frames_table(frames):
    lines = ["| a frame on this machine itself, no guest | ns | allocations | system calls |",
             "|---|---|---|---|"]
    for name, result in frames.items():
        calls = result["system_calls"]
        lines.append(f"| {name} | {result['ns']:.0f} | {result['allocations']} | "
                     f"{'' if calls is None else f'{calls:.2f}'} |")
    return lines


def table(networks, frames):
    cells = networks["cells"]
    lines = []
    for which, text in TITLES.items():
        chosen = [cell for cell in cells if kind(cell) == which]
        if chosen:
            lines += [f"## {text}", "", *rates(chosen, which), "", *costs(chosen), *calls(chosen),
                      ""]
    lines += [
        *verdict(cells), "",
        f"Rounds: {networks['rounds']}, each in turn, {networks['seconds']} s a job. Rates, "
        "latencies and costs are medians; ratios are medians of paired rounds.",
        f"Guest: {networks['ram_mib']} MiB, a vCPU for each pair of queues; all guests run at "
        "once, and one at a time has work, while the monitors of the others stand still but for "
        "those of two guests. TCP is iperf3's, with 4 flows for 2 pairs; packets, round "
        "trips and vsock are made by Tools/guest/traffic.c.",
        "CPU is the process's user and system time without the guest's, vhost's worker counted "
        "with it; the kernel samples it. That of all threads but the vCPUs is exact. For two "
        "guests it is that of both monitors and the switch; a bridge's own work is in it too.",
        "", *frames_table(frames)]
    return "\n".join(lines) + "\n"


def picture(cells):
    def values(cell):
        return [ratio(cell, ours, theirs, "rate") for ours, theirs, _ in TARGETS[kind(cell)]]

    rows = [(title(cell), values(cell)) for cell in cells if kind(cell) == "guest"]
    rows += [(title(cell), [None, *values(cell)]) for cell in cells if kind(cell) == "vsock"]
    return plot("Swiftlet's rate relative to QEMU's, more is better",
                ["with vhost=off", "with vhost=on, vhost-vsock"], rows)


def main(networks, frames, directory):
    with open(networks) as file:
        networks = json.load(file)
    with open(frames) as file:
        frames = json.load(file)
    write(f"{directory}/networks", {**networks, "frames": frames}, table(networks, frames),
          picture(networks["cells"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
