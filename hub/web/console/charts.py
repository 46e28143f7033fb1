"""Charts as SVG, drawn on the server, each with a text alternative.

The drawing scales with the page at constant line width. Axis labels are HTML text beside it, readable on a phone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from hub.web.console.filters import ms, number

_W, _H, _TOP = 600, 150, 10


def outcomes(minutes: Sequence[dict[str, Any]]) -> Markup:
    """Draw the attempts of each minute as stacked bars: delivered, with failed on top."""
    most = max((row["ok"] + row["failed"] for row in minutes), default=0)
    scale = _nice(max(most, 2))
    step = _W / max(1, len(minutes))
    bars = []
    for i, row in enumerate(minutes):
        x, width = i * step, max(1.0, step - 1.5)
        ok, failed = (row[k] / scale * (_H - _TOP) for k in ("ok", "failed"))
        parts = []
        if ok:
            parts.append(_bar("ok", x, _H - ok, width, ok))
        if failed:
            parts.append(_bar("failed", x, _H - ok - failed, width, failed))
        text = f"{number(row['ok'])} delivered, {number(row['failed'])} failed"
        if most:
            bars.append(_column(row, x, step, text, Markup("").join(parts)))
    total, bad = sum(r["ok"] + r["failed"] for r in minutes), sum(r["failed"] for r in minutes)
    label = (
        f"Attempts in the last {len(minutes)} minutes: {number(total)}, of which {number(bad)} failed;"
        f" at most {number(most)} per minute"
    )
    return _frame(label, scale, number, minutes, Markup("").join(bars))


def latency(minutes: Sequence[dict[str, Any]]) -> Markup:
    """Draw median and 95th percentile of each minute as lines, with gaps where nothing was sent."""
    worst = max((row["p95"] or 0 for row in minutes), default=0)
    scale = _nice(worst)
    step = _W / max(1, len(minutes))
    lines = [_line(name, [row[name] for row in minutes], scale) for name in ("p95", "p50") if worst]
    for i, row in enumerate(minutes):
        if row["p95"] is not None:
            text = f"median {ms(row['p50'])}, 95 % within {ms(row['p95'])}"
            lines.append(_column(row, i * step, step, text, Markup("")))
    label = f"Latency in the last {len(minutes)} minutes: the worst 95th percentile of a minute was {ms(worst or None)}"
    return _frame(label, scale, ms, minutes, Markup("").join(lines))


def share(ok: int, failed: int) -> Markup:
    """Draw the share of successful attempts as one bar."""
    total = ok + failed
    if not total:
        return Markup('<span class="none">no attempts</span>')
    good = ok / total * 100
    # Never rounded up to 100 %.
    shown = f"{min(good, 99.9):.1f}" if failed else "100"
    return Markup(
        '<span class="nowrap"><svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="failed" width="100" height="8"/><rect class="ok" width="{:.2f}" height="8"/></svg>'
        " {} %</span>"
    ).format(good, shown)


def _column(row: dict[str, Any], x: float, step: float, text: str, inside: Markup) -> Markup:
    """One minute: its bars and a hover area over the whole height."""
    return Markup(
        '<g data-at="{}"><title>{:%H:%M} UTC: {}</title><rect class="hit" x="{:.1f}" y="0" width="{:.1f}" height="{}"/>'
        "{}</g>"
    ).format(row["at"].isoformat(), row["at"], text, x, step, _H, inside)


def _bar(kind: str, x: float, y: float, width: float, height: float) -> Markup:
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        kind, x, y, width, max(1.0, height)
    )


def _line(kind: str, values: Sequence[float | None], scale: float) -> Markup:
    """A path. A single minute is a stroke of zero length, drawn as a dot by round line ends."""
    step = _W / max(1, len(values))
    path, pen = [], "M"
    for i, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        x, y = (i + 0.5) * step, _H - value / scale * (_H - _TOP)
        path.append(f"{pen}{x:.1f} {y:.1f}" + ("h0" if pen == "M" else ""))
        pen = "L"
    return Markup('<path class="line {}" d="{}"/>').format(kind, "".join(path))


def _frame(
    label: str, scale: float, unit: Callable[[float], str], minutes: Sequence[dict[str, Any]], inside: Markup
) -> Markup:
    if not inside:
        return Markup('<p class="empty">No attempts in this period.</p>')
    grid = Markup("").join(
        Markup('<path class="grid" d="M0 {:.1f}H{}"/>').format(y, _W) for y in (_TOP, (_H + _TOP) / 2, _H - 0.5)
    )
    ends = Markup("").join(
        Markup('<time class="{}" datetime="{}" data-clock>{:%H:%M} UTC</time>').format(
            side, row["at"].isoformat(), row["at"]
        )
        for side, row in (("from", minutes[0]), ("to", minutes[-1]))
        if minutes
    )
    return Markup(
        '<div class="chart"><svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}{}</svg>'
        '<span class="most" aria-hidden="true">{}</span><span class="half" aria-hidden="true">{}</span>{}</div>'
    ).format(_W, _H, label, grid, inside, unit(scale), unit(scale / 2), ends)


def _nice(most: float) -> float:
    """The next round number at or above `most`."""
    if most <= 0:
        return 1.0
    size = 1.0
    while size * 10 <= most:
        size *= 10
    while size > most:
        size /= 10
    return next(size * step for step in (1, 2, 5, 10, 20) if size * step >= most)
