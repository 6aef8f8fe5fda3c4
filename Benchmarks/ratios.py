"""What the reports of measurements against peers share: medians, ratios, system calls, a plot."""

import html
import json
import statistics

COLOURS = ["#d9480f", "#364fc7"]


def median(cell, name, key):
    return statistics.median(run[key] for run in cell["runs"][name])


def ratio(cell, ours, theirs, key):
    """The median of the ratios of runs that stood side by side."""
    return statistics.median(
        our[key] / their[key] if their[key] else float("inf")
        for our, their in zip(cell["runs"][ours], cell["runs"][theirs]))


def call_text(calls):
    """All calls but a vCPU's KVM_RUN, which are its exits; then the most frequent ones."""
    others = {name: count for name, count in calls.items() if name != "ioctl"}
    frequent = sorted(others.items(), key=lambda item: -item[1])
    names = ", ".join(f"{name} {count:.2f}" for name, count in frequent if count >= 0.01)
    return f"{sum(others.values()):.2f}", names


def bars(title, values, y):
    """Each value as a bar; the line at 1 is the peer's."""
    parts = [f'<text x="312" y="{y + 15}" text-anchor="end">{html.escape(title)}</text>']
    for index, value in enumerate(values):
        if value is None:
            continue
        top = y + 3 + index * 9
        width = 120 * min(value, 3)
        parts.append(f'<rect x="320" y="{top}" width="{width:.1f}" height="8" '
                     f'fill="{COLOURS[index]}"/>')
        parts.append(f'<text x="{324 + width:.1f}" y="{top + 8}" font-size="9">{value:.2f}</text>')
    return parts


def plot(title, legend, rows):
    """An SVG image of ratios: two series, and rows of a title and the values of both."""
    height = 60 + 24 * len(rows)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" '
             'font-family="sans-serif" font-size="12">',
             f'<rect width="760" height="{height}" fill="#ffffff"/>',
             f'<text x="320" y="20" font-weight="bold" font-size="13">{title}</text>']
    for index, text in enumerate(legend):
        x = 320 + 220 * index
        parts += [f'<rect x="{x}" y="30" width="10" height="10" fill="{COLOURS[index]}"/>',
                  f'<text x="{x + 14}" y="39">{text}</text>']
    for index, (title, values) in enumerate(rows):
        parts += bars(title, values, 48 + 24 * index)
    parts.append(f'<line x1="440" y1="46" x2="440" y2="{height - 8}" stroke="#000000" '
                 'stroke-dasharray="3 3"/>')
    return "\n".join(parts + ["</svg>"]) + "\n"


def write(base, data, text, image):
    """The same results three times: BASE.json, .md and .svg. The table is shown, too."""
    with open(base + ".json", "w") as file:
        json.dump(data, file, indent=1)
        file.write("\n")
    with open(base + ".md", "w") as file:
        file.write(text)
    with open(base + ".svg", "w") as file:
        file.write(image)
    print(text)
