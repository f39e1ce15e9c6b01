"""The part of a report that shows how the model's training went: its loss over the updates."""

from collections.abc import Mapping, Sequence
from html import escape
from math import log10
from typing import Any

_WIDE, _HIGH, _LEFT, _UNDER = 720, 200, 60, 24
_LINES = (("training", 1, "var(--value)", ""), ("held-out tail", 2, "var(--score)", ' stroke-dasharray="5 3"'))


def training_section(training: Mapping[str, Any]) -> str:
    """HTML of the curve in a model's training summary, on a logarithmic axis; nothing where there is none."""
    curve: Sequence[Sequence[Any]] = training.get("curve") or []
    losses = [loss for point in curve for loss in point[1:] if loss is not None and loss > 0]
    if len(curve) < 2 or not losses:
        return ""
    low, high = log10(min(losses)), log10(max(losses))
    low, high = low - 0.02, max(high, low + 0.1) + 0.02
    last: int = curve[-1][0]

    def across(update: int) -> float:
        return _LEFT + (_WIDE - _LEFT - 8) * update / last

    def down(level: float) -> float:
        return 8 + (_HIGH - _UNDER - 8) * (high - level) / (high - low)

    drawn, named = [], []
    for name, column, colour, dashes in _LINES:
        shown = [(point[0], point[column]) for point in curve if point[column] is not None and point[column] > 0]
        places = [f"{across(update):.1f} {down(log10(loss)):.1f}" for update, loss in shown]
        if places:
            style = f'fill="none" stroke="{colour}" stroke-width="1.6"{dashes}'
            drawn.append(f'<path d="M{" L".join(places)}" {style}/>')
            named.append(f'<span><svg width="24" height="12"><path d="M0 6 H24" {style}/></svg> {escape(name)}</span>')
    ticks = "".join(
        f'<text x="{_LEFT - 6}" y="{down(level) + 4:.1f}" text-anchor="end">{10**level:.3g}</text>'
        for level in (low, (low + high) / 2, high)
    )
    ends = "".join(
        f'<text x="{_LEFT if end == "start" else _WIDE - 8}" y="{_HIGH - 6}" text-anchor="{end}">{text}</text>'
        for end, text in (("start", "0"), ("end", f"{last:,} updates"))
    )
    best = training.get("best_update")
    note = f"The weights of update {best:,} are in use." if best is not None else ""
    if stopped := training.get("stopped"):
        note += f" It stopped early: {escape(stopped, quote=False)}."
    return f"""<section>
<h2>Training of the model</h2>
<div class="card"><svg viewBox="0 0 {_WIDE} {_HIGH}" width="100%" style="max-width:{_WIDE}px" font-size="11"
 fill="currentColor" role="img" aria-label="loss over updates"><path d="M{_LEFT} 8 V{_HIGH - _UNDER} H{_WIDE - 8}" fill="none"
 stroke="currentColor" stroke-opacity=".35"/>{ticks}{ends}{"".join(drawn)}</svg></div>
<p class="note">Loss per value over the updates. {" ".join(named)}. {note}</p>
</section>"""
