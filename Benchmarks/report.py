"""Puts the measurements together: a table, results.json and an SVG plot.

Usage: report.py RING FIRST-RUN BOOTS VMM DIRECTORY
"""

import json
import os
import statistics
import sys

COLOURS = {"swiftlet": "#d9480f", "microvm": "#364fc7", "q35": "#5c7cfa"}


def load(path):
    with open(path) as file:
        return json.load(file)


def summary(boots):
    return {name: {"seconds": statistics.median(run["seconds"] for run in runs),
                   "exits": statistics.median(run["exits"] for run in runs)}
            for name, runs in boots.items()}


def paired_ratio(boots, peer, key):
    """The median of the ratios of runs that stood side by side."""
    return statistics.median(
        ours[key] / theirs[key] for ours, theirs in zip(boots["swiftlet"], boots[peer]))


def table(ring, filters, first, boots, size):
    medians = summary(boots["boots"])
    rest = boots["idle"]
    names = list(medians)
    lines = ["| in one bed, alternately | " + " | ".join(
        {"swiftlet": "Swiftlet", "unconfined": "Swiftlet, unconfined", "microvm": "QEMU microvm", "q35": "QEMU q35"}[n]
        for n in names) + " |", "|---|" + "---|" * len(names)]

    def row(title, values):
        lines.append(f"| {title} | " + " | ".join(values) + " |")

    row("exec to the first line of /init, median s", [f"{medians[n]['seconds']:.2f}" for n in names])
    row("KVM exits until then, median", [f"{medians[n]['exits']:.0f}" for n in names])
    row("memory outside guest RAM, RSS KiB", [str(rest[n]["rss"]) for n in names])
    row("of that private KiB", [str(rest[n]["private"]) for n in names])
    row("of that anonymous KiB", [str(rest[n]["anonymous"]) for n in names])
    row("threads, 1 vCPU", [str(rest[n]["threads"]) for n in names])
    pairs = len(boots["boots"]["swiftlet"])
    lines += ["", f"{pairs} rounds, {boots['ram_mib']} MiB, one disk, one network interface, rng, "
              "serial port; Debian 13 cloud kernel (ELF)."]
    confinement = statistics.median(run["seconds"] for run in boots["boots"]["swiftlet"]) / \
        statistics.median(run["seconds"] for run in boots["boots"]["unconfined"])
    lines.append(
        "Swiftlet to itself with --seccomp false --landlock off: time "
        f"{paired_ratio(boots['boots'], 'unconfined', 'seconds'):.3f}, median of paired ratios; "
        f"{confinement:.3f}, ratio of medians.")
    for peer in names[2:]:
        lines.append(
            f"Swiftlet to {peer}, median of paired ratios: "
            f"time {paired_ratio(boots['boots'], peer, 'seconds'):.2f}, "
            f"exits {paired_ratio(boots['boots'], peer, 'exits'):.2f}.")
    lines += ["", "| on the host itself | Swiftlet | QEMU microvm |", "|---|---|---|"]
    if "missing" in first:
        lines.append(f"| exec to the first KVM_RUN | not measured: {first['missing']} | |")
    else:
        for key, title in (("tiny", "a kernel of one instruction"), ("vmlinux", "Debian's ELF kernel"),
                           ("vmlinuz", "Debian's bzImage")):
            lines.append(f"| exec to the first KVM_RUN, {title}, median ms | "
                         f"{first[key]['median_ms']:.2f} | {first[key]['microvm']['median_ms']:.2f} |")
        lines.append("| CPU time of a whole run of the tiny guest, ms | "
                     f"{first['cpu_to_exit_ms']:.2f} | |")
    lines += [f"| ring pop+push, one descriptor, ns | {ring['direct_ns']:.1f} | |",
              f"| the same through an indirect table, ns | {ring['indirect_ns']:.1f} | |",
              f"| one descriptor in a packed ring, ns | {ring['packed_direct_ns']:.1f} | |",
              f"| the same through a table, ns | {ring['packed_indirect_ns']:.1f} | |",
              f"| heap allocations in {ring['requests']} requests | "
              f"{sum(count for key, count in ring.items() if key.endswith('_allocations'))} | |",
              "| making a thread's filter, the slowest kind's first, µs | "
              f"{max(kind['first_us'] for kind in filters.values()):.0f} | |",
              f"| swiftlet-vmm, static and stripped, bytes | {size} | |"]
    return "\n".join(lines) + "\n"


def bars(title, unit, values, x):
    """One group of bars, 240 wide."""
    top = max(values.values())
    parts = [f'<text x="{x}" y="24" class="t">{title}</text>']
    for index, (name, value) in enumerate(values.items()):
        y = 44 + index * 40
        width = 180 * value / top
        parts.append(f'<rect x="{x}" y="{y}" width="{width:.1f}" height="18" '
                     f'fill="{COLOURS[name]}"/>')
        parts.append(f'<text x="{x}" y="{y + 31}">{name} {value:,.10g} {unit}</text>')
    return parts


def plot(boots):
    medians = summary(boots["boots"])
    del medians["unconfined"]
    groups = [
        ("exec to /init", "s", {n: round(m["seconds"], 2) for n, m in medians.items()}),
        ("KVM exits until /init", "", {n: m["exits"] for n, m in medians.items()}),
        ("memory outside guest RAM", "KiB", {n: boots["idle"][n]["rss"] for n in medians}),
    ]
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 175" '
             'font-family="sans-serif" font-size="12">',
             '<style>.t{font-weight:bold;font-size:13px}</style>',
             '<rect width="760" height="175" fill="#ffffff"/>']
    for index, (title, unit, values) in enumerate(groups):
        parts += bars(title, unit, values, 20 + 250 * index)
    return "\n".join(parts + ["</svg>"]) + "\n"


def main(ring, filters, first, boots, vmm, directory):
    ring, filters, first, boots = (load(path) for path in (ring, filters, first, boots))
    size = os.path.getsize(vmm)
    text = table(ring, filters, first, boots, size)
    with open(directory + "/results.json", "w") as file:
        json.dump({"ring": ring, "filters": filters, "first_run": first, **boots,
                   "binary_bytes": size}, file, indent=1)
        file.write("\n")
    with open(directory + "/results.md", "w") as file:
        file.write(text)
    with open(directory + "/boots.svg", "w") as file:
        file.write(plot(boots))
    print(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
