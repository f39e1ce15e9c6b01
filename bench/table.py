"""The readable table: one line per row, a peer's ratio beside its value."""

from typing import Any

from bench.catalog import TIMES


def table(header: dict[str, Any], rows: list[dict[str, Any]], ratios: dict[str, float]) -> str:
    """Header, then columns benchmark, case, contender, value, unit, and ours over the peer."""
    versions = ", ".join(f"{name} {number}" for name, number in header["versions"].items() if number)
    lines = [
        f"{header['processor']}, {header['cores']} cores, load {header['load']}, {header['date']}",
        versions,
        f"{header['rounds']} rounds; {header['method']}",
        *([f"Kafka: {header['kafka']}"] if "kafka" in header else []),
        "",
    ]
    cells = [("benchmark", "case", "contender", "value", "unit", "ours/peer")]
    for row in rows:
        ratio = ratios.get(f"{row['bench']}/{row['case']}/ours_vs_{row['contender']}")
        beside = f"{ratio:.2f}" if ratio is not None and row["unit"] in TIMES else ""
        cells.append((row["bench"], row["case"], row["contender"], shown(row["value"]), row["unit"], beside))
    widths = [max(len(cell[n]) for cell in cells) for n in range(6)]
    right = (3, 5)
    for cell in cells:
        padded = (cell[n].rjust(widths[n]) if n in right else cell[n].ljust(widths[n]) for n in range(6))
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def shown(value: float) -> str:
    """Thousands apart, and below 100 one digit after the point."""
    return f"{value:,.{1 if value < 100 else 0}f}".replace(",", " ")
