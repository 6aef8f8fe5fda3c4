"""Puts api.py's measurements into a table.

Usage: api_report.py API HOTPLUG DIRECTORY
"""

import json
import sys

ROWS = (("ping_ms", "vmm.ping", "p99 below 1 ms"),
        ("boot_ms", "vm.create and vm.boot, to vCPUs that run", ""),
        ("pause_ms", "vm.pause, 4 vCPUs", "below 5 ms"),
        ("resume_ms", "vm.resume, 4 vCPUs", "below 5 ms"))
HOTPLUG = (("hotplug_add_ms", "vm.add-disk, to its answer"),
           ("hotplug_seen_ms", "from there until the guest's driver has the disk"),
           ("hotplug_gone_ms", "vm.remove-device, until the guest has let go and it is closed"))


def main():
    with open(sys.argv[1]) as file:
        results = json.load(file)
    with open(sys.argv[2]) as file:
        results |= json.load(file)
    lines = ["| on the host itself, ms | median | 99 of 100 below | target |", "|---|---|---|---|"]
    for key, title, target in ROWS:
        lines.append(
            f"| {title} | {results[key]['p50']:.2f} | {results[key]['p99']:.2f} | {target} |")
    lines.append(f"| exec to a socket that answers, CPU time | {results['socket_cpu_ms']:.1f} | "
                 "| at most 8 ms |")
    lines += ["", "| with a guest, in the same machine as for boots, ms | median | 99 of 100 below |",
              "|---|---|---|"]
    lines += [f"| {title} | {results[key]['p50']:.1f} | {results[key]['p99']:.1f} |"
              for key, title in HOTPLUG]
    with open(sys.argv[3] + "/api.md", "w") as file:
        file.write("\n".join(lines) + "\n")
    with open(sys.argv[3] + "/api.json", "w") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
