"""From rounds to tables: medians, spreads, and ratios to each peer paired within a round."""

from statistics import median, quantiles

from .cases import CASES, MIB


def quartiles(values):
    if len(values) < 2:
        return (values[0],) * 3 if values else (None,) * 3
    return tuple(quantiles(values, n=4, method="inclusive"))


def percentile(ordered, share):
    """Of an ascending list; the nearest rank."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def paired_ratios(rounds, name, other):
    """CPU of `name` over CPU of `other`, one ratio a round in which both were clean."""
    return [a["cpu_us"] / b["cpu_us"]
            for a, b in zip(rounds[name], rounds[other])
            if a["cpu_us"] and b["cpu_us"] and not a["failed"] and not b["failed"]]


def case_table(case_name, rounds):
    """Markdown for one load case; `rounds` is name -> list of round records, index = round."""
    case = CASES[case_name]
    names = list(rounds)
    peers = [name for name in names if name != "direct"]
    head = ["proxy", "req/s", "CPU µs/req", "quartiles"]
    head += ["CPU s/GiB"] if case.body_bytes >= 64 << 10 else []
    head += ["core"] + [f"÷ {peer}" for peer in peers]
    head += ["p50 µs", "p99 µs", "p99.9 µs"] if case.rate else []
    head += ["failed"]
    lines = [f"#### {case.title}", "", row(head), row(["---"] + ["--:"] * (len(head) - 1))]
    for name in sorted(names, key=lambda name: (name != "direct", median(record["cpu_us"] or 0 for record in rounds[name]))):
        lines.append(row(case_cells(case, rounds, name, peers)))
    return "\n".join(lines + [""])


def case_cells(case, rounds, name, peers):
    records = rounds[name]
    cpu = [record["cpu_us"] for record in records if record["cpu_us"]]
    low, middle, high = quartiles(cpu)
    cells = [name, f"{median(record['done'] / record['seconds'] for record in records):,.0f}",
             number(middle, 2), f"{number(low, 1)}-{number(high, 1)}" if cpu else "–"]
    if case.body_bytes >= 64 << 10:
        cells.append(number(middle / case.body_bytes * 1024 * MIB / 1e6, 3) if cpu else "–")
    cells.append(number(median(record["core"] for record in records), 2) if cpu else "–")
    for peer in peers:
        ratios = paired_ratios(rounds, name, peer) if name != "direct" else []
        if not ratios:
            cells.append("–")
        elif peer == name:
            cells.append("1.00")
        else:
            low, middle, high = quartiles(ratios)
            cells.append(f"{middle:.2f} ({low:.2f}-{high:.2f})")
    if case.rate:
        cells += [number(median(record[key] for record in records), 0) for key in ("p50_us", "p99_us", "p999_us")]
    cells.append(str(sum(record["failed"] for record in records)))
    return cells


def memory_table(records, connections):
    head = ["proxy", "idle MiB", f"{connections:,} idle connections MiB", "KiB a connection", "after closing MiB"]
    lines = ["#### Memory (proportional set size)", "", row(head), row(["---"] + ["--:"] * (len(head) - 1))]
    for name, record in records.items():
        lines.append(row([name] + [number(record[key] / scale, digits) for key, scale, digits in (
            ("idle_bytes", MIB, 1), ("held_bytes", MIB, 1), ("per_connection_bytes", 1024, 2), ("after_bytes", MIB, 1))]))
    return "\n".join(lines + [""])


def number(value, digits):
    return "–" if value is None else f"{value:,.{digits}f}"


def row(cells):
    return "| " + " | ".join(cells) + " |"
