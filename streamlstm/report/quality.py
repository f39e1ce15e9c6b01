"""The part of a report that says how good the flags were, in plain words."""

from html import escape

from streamlstm.evaluate import Result
from streamlstm.evaluate.result import duration, number, share

_STREAMS_LISTED = 300


def quality_section(result: Result) -> str:
    """HTML of a table of measures with their meaning, and a folded one of the streams."""
    rows = "".join(
        f'<tr><td>{name}<small>{meaning}</small></td><td class="number">{escape(value)}</td><td>{meaning}</td></tr>'
        for name, value, meaning in _measures(result)
    )
    unused = ""
    if result.unused_labels:
        names = ", ".join(result.unused_labels[:5]) + (", ..." if len(result.unused_labels) > 5 else "")
        unused = f'<p class="note">Labels of streams that are not in the data: {escape(names[:500])}</p>'
    return f"""<section>
<h2>Quality against labels</h2>
<div class="card"><table class="quality"><thead><tr><th>measure</th><th class="number">value</th><th>what it means</th>
</tr></thead><tbody>{rows}</tbody></table></div>
{unused}{_per_stream(result)}
</section>"""


def _measures(result: Result) -> list[tuple[str, str, str]]:
    total = result.total
    labelled = total.true + total.missed
    delay = duration(total.delay_seconds) if total.delay_seconds is not None else number(total.delay_rows, 0)
    unit = "" if total.delay_seconds is not None else ", in records"
    promised = "" if result.promised is None else f"; the configuration promises {result.promised:g}"
    measures = [
        ("found", f"{total.true:,} of {labelled:,}", "labelled anomalies that at least one episode overlaps"),
        ("false episodes", f"{total.false:,} of {total.episodes:,}", "episodes that overlap no labelled anomaly"),
        ("precision", number(total.precision), "share of right ones among found anomalies and false episodes"),
        ("recall", number(total.recall), "share of the labelled anomalies that were found"),
        ("F1", number(total.f1), "one number for precision and recall (harmonic mean); no point adjustment"),
        ("delay", delay, f"median time from an anomaly's labelled start to the alarm{unit}; 0 if it came earlier"),
        ("flagged", share(total.flagged_share), "share of the live records that were flagged"),
        ("false per day", number(result.kept), f"false episodes per stream and day outside labels{promised}"),
        ("AUC-PR", number(total.auc_pr, 3), "how well the score alone ranks anomalous records first; 1 is best"),
        ("VUS-PR", number(total.vus_pr, 3), "the same with tolerance around each anomaly's ends; 1 is best"),
    ]
    if total.not_live:
        measures.insert(1, ("not judged", f"{total.not_live:,}", "anomalies at which their stream was not live yet"))
    return measures


def _per_stream(result: Result) -> str:
    if len(result.streams) < 2:
        return ""
    header, *rows = result.rows()
    rows, rest = rows[:-1][:_STREAMS_LISTED], len(rows) - 1 - _STREAMS_LISTED
    head = "".join(f"<th{_kind(i)}>{escape(name)}</th>" for i, name in enumerate(header))
    body = "".join(
        f"<tr>{''.join(f'<td{_kind(i)}>{escape(cell[:120])}</td>' for i, cell in enumerate(row))}</tr>" for row in rows
    )
    note = f'<p class="note">{rest:,} more streams are left out.</p>' if rest > 0 else ""
    return (
        f'<details class="card"><summary>Each stream</summary>{note}<div class="scroll"><table><thead><tr>{head}</tr>'
        f"</thead><tbody>{body}</tbody></table></div></details>"
    )


def _kind(column: int) -> str:
    return ' class="number"' if column else ' class="name"'
