"""Draw the dashboards from a Prometheus, without a Grafana: `python -m tests.monitoring.drawing URL FOLDER [AT]`.

It uses the queries, layout, units, thresholds, mappings and texts of the dashboards, but looks different from Grafana.
Draws the hour before AT (Unix seconds; default now).
"""

from __future__ import annotations

import json
import math
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox

DASHBOARDS = Path(__file__).parents[2] / "grafana" / "dashboards"
HOUR, STEP = 3600, 15
DARK, CARD, TEXT, FAINT = "#111217", "#181b1f", "#d8d9da", "#8e8e8e"
COLORS = {
    "green": "#56A64B",
    "yellow": "#E0B400",
    "red": "#E02F44",
    "blue": "#3274D9",
    "orange": "#FF780A",
    "purple": "#A352CC",
    "dark-red": "#8F1D2C",
    "dark-yellow": "#997A00",
    "dark-purple": "#6C2A8F",
    "transparent": CARD,
}
PALETTE = ["#73BF69", "#F2CC0C", "#8AB8FF", "#FF780A", "#F2495C", "#5794F2", "#B877D9", "#FADE2A", "#37872D"]
Series = list[dict[str, Any]]


def color(name: str) -> str:
    """Return a colour that matplotlib knows."""
    return COLORS.get(name, name)


class Source:
    """Runs the queries of panels in Prometheus."""

    def __init__(self, url: str, at: float, variables: dict[str, str]) -> None:
        self._url = url
        self.end, self.start = at, at - HOUR
        self._variables = {"$__rate_interval": "1m", **variables}

    def _ask(self, path: str, **params: Any) -> Series:
        for name, value in self._variables.items():
            params["query"] = params["query"].replace(name, value)
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(params)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            result: Series = json.load(answer)["data"]["result"]
            return result

    def over_time(self, target: dict[str, Any]) -> list[tuple[str, np.ndarray, np.ndarray, dict[str, str]]]:
        """Return legend, times, values and labels of each series; gaps are NaN."""
        found = []
        for series in self._ask("query_range", query=target["expr"], start=self.start, end=self.end, step=STEP):
            times = np.arange(self.start, self.end + 1, STEP)
            values = np.full(len(times), np.nan)
            for at, value in series["values"]:
                values[round((at - self.start) / STEP)] = float(value)
            found.append((legend(target, series["metric"]), times, values, series["metric"]))
        return sorted(found, key=lambda s: s[0])

    def now(self, target: dict[str, Any]) -> Series:
        """Return the samples at the end."""
        return self._ask("query", query=target["expr"], time=self.end)


def legend(target: dict[str, Any], labels: dict[str, str]) -> str:
    """Return the legend of a series."""
    text = target.get("legendFormat") or ", ".join(f"{k}={v}" for k, v in labels.items())
    for name, value in labels.items():
        text = text.replace("{{" + name + "}}", value)
    return str(text)


def shown(value: float, unit: str, decimals: int | None = None, now: float = 0) -> str:
    """Return a value with its unit, roughly as Grafana formats it."""
    if math.isnan(value):
        return "-"
    if unit == "percentunit":
        return f"{100 * value:.{1 if decimals is None else decimals}f}%"
    if unit == "dateTimeFromNow":
        return f"{shown(now - value / 1000, 's', 0)} ago"
    if unit == "s":
        for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
            if abs(value) >= size:
                return f"{value / size:.{1 if value % size and value / size < 10 else 0}f} {name}"
        return f"{1000 * value:.0f} ms" if value else "0 s"
    text = f"{value:.{decimals}f}" if decimals is not None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return text + unit.removeprefix("suffix:") if unit.startswith("suffix:") else text


def _defaults(panel: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = panel["fieldConfig"]["defaults"]
    return found


def _style(config: dict[str, Any], value: float, now: float) -> tuple[str, str]:
    """Return text and colour of one value."""
    for mapping in config.get("mappings", []):
        hit = mapping["options"].get(f"{value:g}") if mapping["type"] == "value" else None
        if hit:
            return hit["text"], color(hit["color"])
    chosen = "transparent"
    for step in config.get("thresholds", {}).get("steps", []):
        if step.get("value") is None or value >= step["value"]:
            chosen = step["color"]
    return shown(value, config.get("unit", "short"), config.get("decimals"), now), color(chosen)


def draw_stat(ax: Axes, panel: dict[str, Any], source: Source) -> None:
    """Draw a stat panel."""
    ax.axis("off")
    series = source.over_time(panel["targets"][0])
    values = series[0][2] if series else np.array([np.nan])
    known = values[~np.isnan(values)]
    config = _defaults(panel)
    recent = len(values) and not np.all(np.isnan(values[-20:]))
    text, back = _style(config, known[-1], source.end) if recent else (config.get("noValue", "no data"), CARD)
    if panel["options"]["colorMode"] == "value":
        ink, back = back, CARD
    else:
        ink = "white"
    ax.add_patch(Rectangle((0, 0), 1, 1, transform=ax.transAxes, color=back, zorder=0))
    if panel["options"]["graphMode"] == "area" and len(known) > 1:
        inner = ax.inset_axes((0, 0, 1, 0.35))
        inner.axis("off")
        inner.fill_between(range(len(values)), values, color="white", alpha=0.18)
        inner.set_ylim(0, max(known.max(), 1e-9) * 1.1)
    ax.text(0.5, 0.5, text, ha="center", va="center", fontsize=17, color=ink if recent else FAINT, weight="bold")


def draw_lines(ax: Axes, panel: dict[str, Any], source: Source) -> None:
    """Draw series over time, with last and largest values in the legend."""
    config, custom = _defaults(panel), _defaults(panel).get("custom", {})
    fixed = {
        o["matcher"]["options"]: p["value"]["fixedColor"]
        for o in panel["fieldConfig"].get("overrides", [])
        for p in o["properties"]
        if p["id"] == "color"
    }
    series = [s for target in panel["targets"] for s in source.over_time(target)]
    if not series:
        ax.text(
            0.5, 0.5, config.get("noValue", "no data"), ha="center", va="center", color=FAINT, transform=ax.transAxes
        )
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    base = np.zeros(HOUR // STEP + 1)
    for i, (name, times, values, _) in enumerate(series):
        when = mdates.date2num(times.astype("datetime64[s]"))
        ink = color(fixed.get(name, PALETTE[i % len(PALETTE)]))  # as Grafana's classic palette: by position
        known = values[~np.isnan(values)]
        last = shown(values[-1] if len(values) else math.nan, config.get("unit", "short"))
        label = f"{name}   last {last}   max {shown(known.max(), config.get('unit', 'short')) if len(known) else '-'}"
        if stacked:
            top = base + np.nan_to_num(values)
            ax.fill_between(
                when,
                base,
                top,
                color=ink,
                alpha=0.65 if custom.get("drawStyle") == "bars" else 0.4,
                lw=0,
                step="mid" if custom.get("drawStyle") == "bars" else None,
            )
            ax.plot(when, np.where(np.isnan(values), np.nan, top), color=ink, lw=0.9, label=label)
            base = top
        else:
            ax.plot(when, values, color=ink, lw=1.5, label=label)
    for step in config.get("thresholds", {}).get("steps", []):
        if step.get("value") is not None and custom.get("thresholdsStyle", {}).get("mode") == "line":
            ax.axhline(step["value"], color=color(step["color"]), lw=1, ls="--")
    ax.set_ylim(bottom=config.get("min", 0))
    ax.set_xlim(*mdates.date2num(np.array([source.start, source.end]).astype("datetime64[s]")))
    ax.xaxis.set_major_formatter(mdates.DateFormatter("%H:%M"))
    ax.yaxis.set_major_formatter(lambda v, _: shown(v, config.get("unit", "short")))
    ax.tick_params(colors=FAINT, labelsize=6.5)
    ax.grid(color="#2c2f36", lw=0.5)
    if series:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=6, frameon=False, labelcolor=TEXT, ncol=1)


def draw_timeline(ax: Axes, panel: dict[str, Any], source: Source) -> None:
    """Draw states over time, a row per series."""
    series = [s for target in panel["targets"] for s in source.over_time(target)]
    for row, (_, times, values, _) in enumerate(reversed(series)):
        when = mdates.date2num(times.astype("datetime64[s]"))
        begin = 0
        for i in range(1, len(values) + 1):
            if i == len(values) or values[i] != values[begin]:
                if not np.isnan(values[begin]):
                    text, ink = _style(_defaults(panel), values[begin], source.end)
                    right = when[min(i, len(when) - 1)]
                    ax.barh(row, right - when[begin], left=when[begin], height=0.8, color=ink)
                    if i - begin > 20:
                        ax.text(
                            (when[begin] + right) / 2, row, text, ha="center", va="center", fontsize=6.5, color="white"
                        )
                begin = i
    ax.set_yticks(range(len(series)), [s[0] for s in reversed(series)])
    ax.set_xlim(*mdates.date2num(np.array([source.start, source.end]).astype("datetime64[s]")))
    ax.xaxis.set_major_formatter(mdates.DateFormatter("%H:%M"))
    ax.tick_params(colors=TEXT, labelsize=7)


def draw_table(ax: Axes, panel: dict[str, Any], source: Source) -> None:
    """Draw a table: queries merged on their labels, columns ordered and renamed by the transformations."""
    ax.axis("off")
    arrange = panel["transformations"][1]["options"]
    rows: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for target in panel["targets"]:
        for sample in source.now(target):
            labels = {k: v for k, v in sample["metric"].items() if k != "__name__"}
            row = rows.setdefault(tuple(sorted(labels.items())), dict(labels))
            name = f"Value #{target['refId']}" if len(panel["targets"]) > 1 else "Value"
            row[name] = float(sample["value"][1])
    if not rows:
        ax.text(
            0.5, 0.5, _defaults(panel).get("noValue", "nothing"), ha="center", va="center", color=FAINT, fontsize=11
        )
        return
    names = {name for row in rows.values() for name in row}
    order = arrange["indexByName"]
    keys = [n for n in sorted(names, key=lambda n: order.get(n, 50)) if n not in arrange["excludeByName"]]
    config = {
        o["matcher"]["options"]: {p["id"]: p["value"] for p in o["properties"]}
        for o in panel["fieldConfig"].get("overrides", [])
    }
    heads = [arrange["renameByName"].get(key, key) for key in keys]
    ordered = sorted(rows.values(), key=lambda row: tuple(str(row.get(k, "")) for k in keys))
    for sort in panel["options"].get("sortBy", [])[:1]:
        by = keys[heads.index(sort["displayName"])] if sort["displayName"] in heads else keys[0]
        ordered.sort(key=lambda row: row.get(by, -math.inf), reverse=sort["desc"])
    texts, backs = [], []
    for row in ordered:
        cells = []
        for key, head in zip(keys, heads, strict=True):
            value = row.get(key)
            cells.append(
                (value or "", CARD) if not isinstance(value, float) else _style(config.get(head, {}), value, source.end)
            )
        texts.append([c[0] for c in cells])
        backs.append([c[1] for c in cells])
    height = min(1.0, 0.125 * (len(texts) + 1))
    room = Bbox.from_bounds(0, 1 - height, 1, height)
    drawn = ax.table(texts, cellColours=backs, colLabels=heads, bbox=room, cellLoc="left")
    drawn.auto_set_font_size(False)
    drawn.auto_set_column_width(list(range(len(heads))))
    for (line, column), cell in drawn.get_celld().items():
        cell.set_edgecolor("#2c2f36")
        cell.set_fontsize(7.5)
        colored = line > 0 and backs[line - 1][column] != CARD
        cell.get_text().set_color(FAINT if line == 0 else "white" if colored else TEXT)
        cell.get_text().set_fontweight("bold" if colored else "normal")
        if line == 0:
            cell.set_facecolor(DARK)


def draw_heat(ax: Axes, panel: dict[str, Any], source: Source) -> None:
    """Draw a heat map. Prometheus' buckets are cumulative."""
    found = sorted(source.over_time(panel["targets"][0]), key=lambda s: float(s[0].replace("+Inf", "inf")))
    if not found:
        return
    counts = np.diff(np.vstack([np.zeros(len(found[0][2])), *(np.nan_to_num(s[2]) for s in found)]), axis=0)
    begin, end = mdates.date2num(np.array([source.start, source.end]).astype("datetime64[s]"))
    ax.imshow(
        counts,
        aspect="auto",
        origin="lower",
        cmap="inferno",
        interpolation="nearest",
        extent=(begin, end, -0.5, len(found) - 0.5),
    )
    ax.xaxis.set_major_formatter(mdates.DateFormatter("%H:%M"))
    ax.set_yticks(range(len(found)), [s[0] for s in found])
    ax.tick_params(colors=FAINT, labelsize=6)


def draw_text(ax: Axes, panel: dict[str, Any], source: Source) -> None:
    """Draw Markdown as plain text."""
    ax.axis("off")
    ax.text(0, 1, panel["options"]["content"], va="top", color=TEXT, fontsize=5.5, family="monospace", wrap=True)


DRAW: dict[str, Callable[[Axes, dict[str, Any], Source], None]] = {
    "stat": draw_stat,
    "timeseries": draw_lines,
    "state-timeline": draw_timeline,
    "table": draw_table,
    "heatmap": draw_heat,
    "text": draw_text,
}


def draw(board: dict[str, Any], source: Source, path: Path) -> None:
    """Draw one dashboard as a PNG: 24 columns are 20 inches."""
    rows = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in board["panels"])
    wide, tall = 20.0, rows * 0.42 + 0.5
    figure = plt.figure(figsize=(wide, tall), facecolor=DARK)
    figure.text(0.01, 1 - 0.25 / tall, board["title"], color=TEXT, fontsize=14, weight="bold", va="center")
    for panel in board["panels"]:
        at = panel["gridPos"]
        left, width = at["x"] / 24, at["w"] / 24
        top, height = 1 - (0.5 + at["y"] * 0.42) / tall, at["h"] * 0.42 / tall
        frame = figure.add_axes((left + 0.002, top - height + 0.003, width - 0.004, height - 0.006))
        frame.set_facecolor(CARD)
        frame.set_xticks([])
        frame.set_yticks([])
        figure.text(
            left + 0.006, top - 0.16 / tall, panel["title"], color=TEXT, fontsize=8.5, va="center", weight="bold"
        )
        graph = panel["type"] in {"timeseries", "state-timeline", "heatmap"}
        legend_room = 0.3 if panel["type"] == "timeseries" else 0.09
        names = 0.07 if panel["type"] == "state-timeline" else 0.034  # room beside the axis
        box = (left + 0.005, top - height + 0.06 / tall, width - 0.01, height - 0.36 / tall)
        if graph:
            box = (
                left + names,
                top - height + height * legend_room,
                width - names - 0.008,
                height * (0.86 - legend_room),
            )
        ax = figure.add_axes(box)
        ax.set_facecolor(CARD)
        for spine in ax.spines.values():
            spine.set_visible(False)
        DRAW[panel["type"]](ax, panel, source)
    figure.savefig(path, dpi=80, facecolor=DARK)
    plt.close(figure)


def main(url: str, folder: str, at: float | None = None) -> None:
    """Draw every dashboard into `folder`; `at` is the end of the hour, in Unix seconds."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        board = json.loads(path.read_text())
        single = next((v for v in board["templating"]["list"] if v["name"] == "service" and not v.get("multi")), None)
        source = Source(url, at or time.time(), {"$service": "crm" if single else ".*", "$environment": ".*"})
        Path(folder).mkdir(parents=True, exist_ok=True)
        draw(board, source, Path(folder) / f"{board['uid']}.png")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else None)
