"""Turns measurements into tables and a picture. Medians of the rounds; ratios are medians of each round's ratio."""

import json
import os
import shutil
import statistics
import subprocess

BASE = "pgbouncer"
COLOURS = {"direct": "#9aa0a6", "haproxy": "#5b8ff9", "pgbouncer": "#f6a04d", "pooler": "#2f9e62"}
SESSION_COLOURS = {"one-server": "#f6a04d", "settings": "#2f9e62"}
ROUTED_COLOURS = {"host": "#f6a04d", "one-node": "#9aa0a6", "nodes": "#2f9e62", "to-primary": "#5b8ff9"}
# column: (heading, key, how it is printed)
COLUMNS = [
    ("tx/s", "tps", lambda v: f"{v:,.0f}" if v >= 100 else f"{v:.1f}"),
    ("p50 ms", "p50", lambda v: f"{v / 1000:.3f}"),
    ("p99 ms", "p99", lambda v: f"{v / 1000:.3f}"),
    ("p99.9 ms", "p999", lambda v: f"{v / 1000:.3f}"),
    ("CPU µs/tx", "cpu", lambda v: f"{v:.1f}"),
    ("switches/tx", "switches", lambda v: f"{v:.2f}"),
]
# Of databases with nodes.
ROUTED_COLUMNS = COLUMNS + [
    ("on replicas", "on_replicas", lambda v: f"{v:.1%}"),
    ("own queries/tx", "own_queries", lambda v: f"{v:.4f}"),
]
RATIOS = [("tx/s", "tps"), ("p50", "p50"), ("p99", "p99"), ("CPU", "cpu")]
IDLE_COLUMNS = [
    ("KB/client", "per_client", lambda v: f"{v / 1024:.2f}"),
    ("before MB", "before", lambda v: f"{v / 2**20:.1f}"),
    ("held MB", "held", lambda v: f"{v / 2**20:.1f}"),
    ("after MB", "after", lambda v: f"{v / 2**20:.1f}"),
    ("kept after leaving", "kept", lambda v: f"{v:.0%}"),
    ("cores while idle", "idle_cores", lambda v: f"{v:.4f}"),
]


def columns_of(results):
    """By what was measured."""
    for key, columns in [("per_client", IDLE_COLUMNS), ("on_replicas", ROUTED_COLUMNS)]:
        if any(key in result for result in results):
            return columns
    return COLUMNS


def base_of(contestants):
    """Whom the others are compared with: those without routing or settings, if that is what was measured."""
    return next((base for base in ["host", "one-server"] if base in contestants), BASE)


def brief(result):
    if "failed" in result:
        return "FAILED " + result["failed"]
    columns = columns_of([result])
    text = "  ".join(f"{heading} {show(result[key])}" for heading, key, show in columns if key in result)
    return text + (f"  {result['errors']} ERRORS {result.get('error', '')}" if result.get("errors") else "")


def median(rounds, key):
    values = [r[key] for r in rounds if key in r]
    return statistics.median(values) if values else None


def ratios(rounds, base, key):
    """Of each round in which both have the value; they ran next to each other."""
    return [r[key] / b[key] for r, b in zip(rounds, base) if key in r and b.get(key)]


def ratio(rounds, base, key):
    values = ratios(rounds, base, key)
    return statistics.median(values) if values else None


def row(name, rounds, base, columns):
    cells = [name]
    for _, key, show in columns:
        value = median(rounds, key)
        cells.append("–" if value is None else show(value))
    if columns is not IDLE_COLUMNS:
        for _, key in RATIOS:
            value = ratio(rounds, base, key) if base else None
            cells.append("–" if value is None else f"{value:.2f}")
        spread = ratios(rounds, base, "cpu") if base else []
        cells.append(f"{min(spread):.2f}–{max(spread):.2f}" if spread else "–")
    return cells


def remarks(contestants):
    """Rounds that failed and requests that were refused must not hide behind a median."""
    lines = []
    for name, rounds in contestants.items():
        failed = [r["failed"] for r in rounds if "failed" in r]
        errors = sum(r.get("errors", 0) for r in rounds)
        if failed:
            lines.append(f"{name}: {len(failed)} of {len(rounds)} rounds failed: {failed[0]}")
        if errors:
            text = next(r.get("error", "") for r in rounds if r.get("errors"))
            lines.append(f"{name}: {errors} requests failed: {text}")
    return lines


def sections(meta, results):
    """(workload, title, headings, rows, remarks) of each workload."""
    for workload, contestants in results.items():
        if not contestants:
            continue
        columns = columns_of([r for rounds in contestants.values() for r in rounds])
        headings = ["", *(c[0] for c in columns)]
        if columns is not IDLE_COLUMNS:
            headings += [f"{name} ÷" for name, _ in RATIOS] + ["CPU ÷ range"]
        base = contestants.get(base_of(contestants))
        rows = [row(name, rounds, base, columns) for name, rounds in contestants.items()]
        yield workload, meta["titles"][workload], headings, rows, remarks(contestants)


def head(meta):
    versions = ", ".join(dict.fromkeys(meta["versions"].values()))
    return (f"{meta['time']}: medians of {meta['rounds']} interleaved rounds of {meta['seconds']:g} s on "
            f"{meta['cores']} cores shared by PostgreSQL, load and pooler (load average before: {meta['load']:.1f}). "
            f"÷: ratio to {base_of(meta['contestants'])}. {versions}.")


def summary(meta, results):
    """One line per workload: what everybody wants to know first."""
    against = base_of(meta["contestants"])
    others = [name for name in meta["contestants"] if name != against]
    headings = [""] + [f"{name} CPU ÷" for name in others if name != "direct"] + [f"{name} tx/s ÷" for name in others]
    headings += [f"{name} p99/p50" for name in meta["contestants"]]
    rows = []
    for workload, contestants in results.items():
        base = contestants.get(against)
        cells = [workload]
        for heading in headings[1:]:
            name, what = heading.split(" ", 1)
            rounds = contestants.get(name, [])
            if what == "p99/p50":
                low, high = median(rounds, "p50"), median(rounds, "p99")
                value = high / low if low else None
            else:
                value = ratio(rounds, base, "cpu" if what.startswith("CPU") else "tps") if base else None
            cells.append("–" if value is None else f"{value:.2f}")
        if any(cell != "–" for cell in cells[1:]):
            rows.append(cells)
    return headings, rows


def text_table(headings, rows):
    table = [headings, *rows]
    widths = [max(len(r[i]) for r in table) for i in range(len(headings))]
    return ["  " + "  ".join([r[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(r[1:], widths[1:]))]) for r in table]


def markdown_table(headings, rows):
    lines = ["| " + " | ".join(headings) + " |", "|---" + "|--:" * (len(headings) - 1) + "|"]
    return lines + ["| " + " | ".join(cells) + " |" for cells in rows] + [""]


def as_text(meta, results):
    lines = [head(meta)]
    for workload, title, headings, rows, notes in sections(meta, results):
        lines += ["", f"{workload}: {title}", *text_table(headings, rows), *("  ! " + note for note in notes)]
    return "\n".join([*lines, "", "summary", *text_table(*summary(meta, results))]) + "\n"


def as_markdown(meta, results):
    lines = [head(meta), "", "![Ratios to PgBouncer](ratios.svg)", "", *markdown_table(*summary(meta, results))]
    for workload, title, headings, rows, notes in sections(meta, results):
        lines += [f"**{workload}**: {title}", "", *markdown_table(headings, rows)]
        lines += [f"- ! {note}" for note in notes] + ([""] if notes else [])
    return "\n".join(lines)


def bars(results, key):
    """[(workload, [(contestant, ratio)])] for the picture."""
    out = []
    for workload, contestants in results.items():
        against = base_of(contestants)
        base = contestants.get(against)
        found = [(name, ratio(rounds, base, key)) for name, rounds in contestants.items() if base and name != against]
        found = [(name, value) for name, value in found if value is not None]
        if found:
            out.append((workload, found))
    return out


def panel(title, data, top, x, width):
    """One chart of horizontal bars, PgBouncer as the line at 1; its SVG and its height."""
    label, bar, gap, most = 130, 13, 10, 2.0
    scale = (width - label - 60) / most
    out = [f'<text x="{x}" y="{top + 16}" font-size="15" font-weight="bold">{title}</text>']
    y = top + 32
    for workload, values in data:
        middle = y + bar * len(values) / 2 + 4
        out.append(f'<text x="{x + label - 8}" y="{middle}" text-anchor="end" font-size="12">{workload}</text>')
        for name, value in values:
            length = min(value, most) * scale
            colour = {**COLOURS, **ROUTED_COLOURS, **SESSION_COLOURS}.get(name, "#888")
            out.append(f'<rect x="{x + label}" y="{y}" width="{length:.1f}" height="{bar - 2}" fill="{colour}"/>')
            out.append(f'<text x="{x + label + length + 4:.1f}" y="{y + 10}" font-size="10">{value:.2f}</text>')
            y += bar
        y += gap
    line = x + label + scale
    out = [f'<line x1="{line}" y1="{top + 26}" x2="{line}" y2="{y - gap + 4}" stroke="{COLOURS[BASE]}" '
           'stroke-width="2" stroke-dasharray="4 3"/>', *out]
    return out, y - top


def as_svg(meta, results):
    base = base_of({name for contestants in results.values() for name in contestants})
    panels = [(f"CPU per transaction ÷ {base} (less is better)", bars(results, "cpu")),
              (f"Throughput ÷ {base} (more is better)", bars(results, "tps"))]
    width, body, height = 560, [], 0
    for number, (title, data) in enumerate(panels):
        part, tall = panel(title, data, 44, 20 + number * width, width)
        body += part
        height = max(height, tall + 60)
    legend, x = [], 20
    for name, colour in {"host": ROUTED_COLOURS, "one-server": SESSION_COLOURS}.get(base, COLOURS).items():
        if name not in meta["contestants"]:
            continue
        text = f"{name} = 1" if name == base else name
        legend.append(f'<rect x="{x}" y="16" width="12" height="12" fill="{colour}"/>'
                      f'<text x="{x + 17}" y="26" font-size="12">{text}</text>')
        x += 120
    caption = head(meta) + (f" Commit {meta['commit']}." if meta.get("commit") else "")
    body.append(f'<text x="20" y="{height + 8}" font-size="11" fill="#555">{caption}</text>')
    size = f'width="{2 * width + 40}" height="{height + 20}"'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">'
            f'<rect width="100%" height="100%" fill="white"/>{"".join(legend + body)}</svg>\n')


def write(out, meta, results):
    """Writes all files into `out` and returns the text."""
    os.makedirs(out, exist_ok=True)
    text = as_text(meta, results)
    files = {"report.txt": text, "report.md": as_markdown(meta, results), "ratios.svg": as_svg(meta, results),
             "results.json": json.dumps({"meta": meta, "results": results}, indent=1)}
    for name, content in files.items():
        with open(f"{out}/{name}", "w") as f:
            f.write(content)
    if shutil.which("rsvg-convert"):
        subprocess.run(["rsvg-convert", "-o", f"{out}/ratios.png", f"{out}/ratios.svg"], check=False)
    return text
