"""Small charts as SVG, made on the server: no script, and a text that says the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from hub.web.console.filters import ms, number

_W, _H, _TOP, _LEFT = 640, 150, 10, 44


def outcomes(minutes: Sequence[dict[str, Any]]) -> Markup:
    """Deliveries of each minute as stacked bars: those that worked, and on top those that failed."""
    most = max((row["ok"] + row["failed"] for row in minutes), default=0)
    scale = _nice(most)
    step = (_W - _LEFT) / max(1, len(minutes))
    bars = []
    for i, row in enumerate(minutes):
        x, width = _LEFT + i * step, max(1.0, step - 1.5)
        ok, failed = (row[k] / scale * (_H - _TOP) for k in ("ok", "failed"))
        title = f"{row['at']:%H:%M} UTC: {row['ok']} delivered, {row['failed']} failed"
        parts = [Markup("<title>{}</title>").format(title)]
        # The whole column answers to the pointer, however low its bar.
        parts.append(Markup('<rect class="hit" x="{:.1f}" y="0" width="{:.1f}" height="{}"/>').format(x, step, _H))
        if ok:
            parts.append(_bar("ok", x, _H - ok, width, ok))
        if failed:
            parts.append(_bar("failed", x, _H - ok - failed, width, failed))
        bars.append(Markup("<g>") + Markup("").join(parts) + Markup("</g>"))
    total, bad = sum(r["ok"] + r["failed"] for r in minutes), sum(r["failed"] for r in minutes)
    label = f"Attempts in the last {len(minutes)} minutes: {total}, of which {bad} failed; at most {most} a minute"
    return _frame(label, scale, lambda v: number(v), minutes, Markup("").join(bars))


def latency(minutes: Sequence[dict[str, Any]]) -> Markup:
    """Median and 95th percentile of each minute as lines; minutes without deliveries are gaps."""
    worst = max((row["p95"] or 0 for row in minutes), default=0)
    scale = _nice(worst)
    lines = [_line(name, [row[name] for row in minutes], scale) for name in ("p95", "p50")]
    label = f"Latency in the last {len(minutes)} minutes: the worst 95th percentile of a minute was {ms(worst or None)}"
    return _frame(label, scale, ms, minutes, Markup("").join(lines))


def share(ok: int, failed: int) -> Markup:
    """How much of the work succeeded, as one bar."""
    total = ok + failed
    if not total:
        return Markup('<span class="none">no attempts</span>')
    good = ok / total * 100
    return Markup(
        '<svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{:.1f} % delivered">'
        '<rect class="failed" width="100" height="8"/><rect class="ok" width="{:.2f}" height="8"/></svg>'
        ' <span class="nowrap">{:.1f} %</span>'
    ).format(good, good, good)


def _bar(kind: str, x: float, y: float, width: float, height: float) -> Markup:
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        kind, x, y, width, max(1.0, height)
    )


def _line(kind: str, values: Sequence[float | None], scale: float) -> Markup:
    step = (_W - _LEFT) / max(1, len(values))
    path, pen = [], "M"
    dots = []
    for i, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        x, y = _LEFT + (i + 0.5) * step, _H - value / scale * (_H - _TOP)
        alone = (i == 0 or values[i - 1] is None) and (i + 1 == len(values) or values[i + 1] is None)
        if alone:
            dots.append(Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="2.5"/>').format(kind, x, y))
        path.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
    return Markup('<path class="line {}" d="{}"/>').format(kind, "".join(path)) + Markup("").join(dots)


def _frame(label: str, scale: float, unit: Any, minutes: Sequence[dict[str, Any]], inside: Markup) -> Markup:
    grid = Markup("").join(
        Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/><text x="{}" y="{:.1f}">{}</text>').format(
            _LEFT, _W, y, y, _LEFT - 6, y + 4, unit(scale * part)
        )
        for part, y in ((0.5, _H - (_H - _TOP) / 2), (1.0, float(_TOP)))
    )
    times = Markup("")
    if minutes:
        times = Markup(
            '<text class="from" x="{}" y="{}">{:%H:%M}</text><text x="{}" y="{}">{:%H:%M} UTC</text>'
        ).format(_LEFT, _H + 16, minutes[0]["at"], _W, _H + 16, minutes[-1]["at"])
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}<line class="axis" x1="{}" x2="{}" y1="{}"'
        ' y2="{}"/>{}{}</svg>'
    ).format(_W, _H + 22, label, grid, _LEFT, _W, _H, _H, inside, times)


def _nice(most: float) -> float:
    """A round number just above."""
    if most <= 0:
        return 1.0
    size = 1.0
    while size * 10 <= most:
        size *= 10
    while size > most:
        size /= 10
    return next(size * step for step in (1, 2, 5, 10, 20) if size * step >= most)
