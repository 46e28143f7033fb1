"""Panels, layout, variables and links that all dashboards share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, statetimeline, table
from grafana_foundation_sdk.builders import timeseries as series
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

GREEN, YELLOW, RED, BLUE, GREY = "green", "yellow", "red", "blue", "#8e8e8e"
PER_SECOND, PER_MINUTE = "suffix:/s", "suffix:/min"
STATES = {"pending": BLUE, "running": GREEN, "delayed": YELLOW, "held": GREY}
SHARES = {"p50": GREEN, "p95": YELLOW, "p99": RED}
ENV = 'environment=~"$environment"'
SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
KEEP = "${environment:queryparam}&${__url_time_range}&var-datasource=${datasource}"
SERVICE_LINK = "/d/hub-service?var-service=${__data.fields.service}&" + KEEP
SERIES_LINK = "/d/hub-service?var-service=${__field.labels.service}&" + KEEP
BOARDS = (
    ("hub-overview", "Overview"),
    ("hub-service", "Service"),
    ("hub-dlq", "DLQ and retries"),
    ("hub-runtime", "Broker and runtime"),
    ("hub-runbooks", "Runbooks"),
)
Panel = Any  # a builder of the SDK


@dataclass(frozen=True)
class Q:
    """A query: PromQL, and the legend of its series."""

    expr: str
    legend: str = ""


def _targets(queries: Sequence[Q], *, instant: bool = False, as_table: bool = False) -> list[Any]:
    """Return targets with `refId` set: the SDK leaves it empty, and Grafana then shows the first query only."""
    targets = []
    for i, query in enumerate(queries):
        target = prometheus.Dataquery().expr(" ".join(query.expr.split())).ref_id(chr(ord("A") + i)).datasource(SOURCE)
        target = target.instant() if instant else target.range()
        if query.legend:
            target = target.legend_format(query.legend)
        if as_table:
            target = target.format(PromQueryFormat.TABLE)
        targets.append(target)
    return targets


def steps(base: str, *more: tuple[float, str]) -> Any:
    """Thresholds: a base colour, then colours from a value on."""
    return (
        dashboard.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(None, base), *(model.Threshold(value, color) for value, color in more)])
    )


def words(**by_value: tuple[str, str]) -> list[model.ValueMapping]:
    """Return value mappings: `_0=("up", GREEN)` shows 0 as "up"."""
    options = {
        value.lstrip("_"): model.ValueMappingResult(text=text, color=color, index=i)
        for i, (value, (text, color)) in enumerate(by_value.items())
    }
    return [model.ValueMap(options=options)]


CIRCUIT = words(_0=("closed", GREEN), _1=("probing", "orange"), _2=("OPEN", RED))


def circuit(service: str) -> str:
    """Return PromQL for circuits by service: 0 closed, 1 half open (a probe runs), 2 open."""
    return f"""max by (environment, service) (hub_breaker_state{{{ENV}, service=~"{service}", state="open"}} * 2
        or hub_breaker_state{{{ENV}, service=~"{service}", state="half_open"}})"""


def one(
    title: str,
    text: str,
    expr: str,
    unit: str,
    *,
    thresholds: Any = None,
    mappings: list[model.ValueMapping] | None = None,
    none: str = "no data",
    decimals: int | None = None,
    graph: bool = True,
    link: str | None = None,
) -> Panel:
    """Return a panel with one number, coloured by thresholds. `none` is shown when there is no series."""
    p = (
        stat.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .targets(_targets([Q(expr, title)]))
        .unit(unit)
        .no_value(none)
        .thresholds(thresholds or steps(BLUE))
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .color_mode(look.BigValueColorMode.BACKGROUND_SOLID if thresholds or mappings else look.BigValueColorMode.VALUE)
        .graph_mode(look.BigValueGraphMode.AREA if graph else look.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    )
    if mappings:
        p = p.mappings(mappings)
    if decimals is not None:
        p = p.decimals(decimals)
    if link:
        p = p.data_links([dashboard.DashboardLink("Runbooks").type(model.DashboardLinkType.LINK).url(link)])
    return p


def lines(
    title: str,
    text: str,
    queries: Sequence[Q],
    unit: str,
    *,
    stacked: bool = False,
    limit: float | None = None,
    limit_color: str = RED,
    minimum: float = 0,
    maximum: float | None = None,
    colors: dict[str, str] | None = None,
    bars: bool = False,
    drill: bool = False,
    none: str = "no data",
) -> Panel:
    """Return a panel of series over time. `limit` draws a line; `drill` links each series to its service."""
    p = (
        series.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .targets(_targets(queries))
        .unit(unit)
        .min(minimum)
        .no_value(none)
        .line_width(1 if stacked or bars else 2)
        .fill_opacity(60 if bars else 25 if stacked else 5)
        .show_points(look.VisibilityMode.NEVER)
        .span_nulls(False)
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .thresholds(steps("transparent", *([(limit, limit_color)] if limit is not None else [])))
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(look.LegendDisplayMode.TABLE)
            .placement(look.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(look.TooltipDisplayMode.MULTI).sort(look.SortOrder.DESCENDING))
    )
    if bars:
        p = p.draw_style(look.GraphDrawStyle.BARS)
    if stacked or bars:
        p = p.stacking(common.StackingConfig().mode(look.StackingMode.NORMAL).group("A"))
    if limit is not None:
        p = p.thresholds_style(common.GraphThresholdsStyleConfig().mode(look.GraphThresholdsStyleMode.LINE))
    if maximum is not None:
        p = p.max(maximum)
    if drill:
        p = p.data_links(
            [dashboard.DashboardLink("Service detail").type(model.DashboardLinkType.LINK).url(SERIES_LINK)]
        )
    for name, color in (colors or {}).items():
        fixed = {"mode": "fixed", "fixedColor": color}
        p = p.override_by_name(name, [model.DynamicConfigValue(id_val="color", value=fixed)])
    return p


def timeline(title: str, text: str, queries: Sequence[Q], mappings: list[model.ValueMapping]) -> Panel:
    """Return a panel of states over time."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .targets(_targets(queries))
        .mappings(mappings)
        .unit("short")
        .no_value("no data")
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .thresholds(steps(GREY))
        .show_value(look.VisibilityMode.AUTO)
        .row_height(0.8)
        .fill_opacity(85)
        .merge_values(True)
        .legend(common.VizLegendOptions().show_legend(True).display_mode(look.LegendDisplayMode.LIST))
        .tooltip(common.VizTooltipOptions().mode(look.TooltipDisplayMode.SINGLE))
    )


def heat(title: str, text: str, expr: str) -> Panel:
    """Return a heat map; `expr` gives buckets by `le`."""
    target = prometheus.Dataquery().expr(expr).ref_id("A").datasource(SOURCE).range().legend_format("{{le}}")
    return (
        heatmap.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .targets([target.format(PromQueryFormat.HEATMAP)])
        .unit("s")
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().scheme("Oranges").steps(64))
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .cell_gap(1)
        .show_legend()
    )


@dataclass(frozen=True)
class Column:
    """A column of a table: heading, a query with one value per row, unit and field properties."""

    title: str
    expr: str
    unit: str = "short"
    properties: tuple[tuple[str, Any], ...] = ()


def colored(*more: tuple[float, str]) -> tuple[tuple[str, Any], ...]:
    """Return properties of a column whose cells are coloured from given values on."""
    return (
        ("custom.cellOptions", {"type": "color-background", "mode": "basic"}),
        (
            "thresholds",
            {
                "mode": "absolute",
                "steps": [{"value": None, "color": "transparent"}]
                + [{"value": value, "color": color} for value, color in more],
            },
        ),
    )


def mapped(mappings: list[model.ValueMapping]) -> tuple[tuple[str, Any], ...]:
    """Return properties of a column that shows value mappings."""
    return (
        ("custom.cellOptions", {"type": "color-background", "mode": "basic"}),
        ("mappings", [m.to_json() for m in mappings]),
    )


def grid(
    title: str,
    text: str,
    columns: Sequence[Column],
    *,
    key: str,
    links: Sequence[tuple[str, str, str]],
    hidden: Sequence[str] = (),
    order: Sequence[str] = (),
    sort: tuple[str, bool] | None = None,
    none: str = "nothing",
) -> Panel:
    """Return a table with one row per `key` and one column per query. `links` are (column, title, URL)."""
    names = {f"Value #{chr(ord('A') + i)}": column.title for i, column in enumerate(columns)}
    if len(columns) == 1:
        names = {"Value": columns[0].title}
    p = (
        table.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .targets(_targets([Q(c.expr) for c in columns], instant=True, as_table=True))
        .unit("short")
        .no_value(none)
        .thresholds(steps("transparent"))
        .show_header(True)
        .with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            model.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": dict.fromkeys(("Time", *hidden), True),
                    "indexByName": {name: i for i, name in enumerate((*order, key, *names))},
                    "renameByName": names,
                },
            )
        )
    )
    for column in columns:
        settings = [("unit", column.unit), *column.properties]
        p = p.override_by_name(column.title, [model.DynamicConfigValue(id_val=k, value=v) for k, v in settings])
    for column_name, link_title, url in links:
        link = [{"title": link_title, "url": url, "targetBlank": False}]
        p = p.override_by_name(column_name, [model.DynamicConfigValue(id_val="links", value=link)])
    if sort:
        p = p.sort_by([common.TableSortByFieldState().display_name(sort[0]).desc(sort[1])])
    return p


def board(
    uid: str,
    title: str,
    text: str,
    rows: Sequence[tuple[int, Sequence[tuple[int, Panel]]]],
    *,
    single: bool = False,
    live: bool = True,
) -> dict[str, Any]:
    """Return a dashboard as the JSON object that Grafana reads.

    Args:
        rows: height, and panels with their widths (24 make a row), from top to bottom.
        single: whether `service` is one service, not several.
        live: whether it shows data.
    """
    d = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(text)
        .tags(["hub"])
        .readonly()
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    if live:
        d = d.refresh("30s").with_variable(_environment()).with_variable(_service(single)).annotation(_openings())
    for other, name in BOARDS:
        if other != uid:
            d = d.link(
                dashboard.DashboardLink(name)
                .type(model.DashboardLinkType.LINK)
                .icon("dashboard")
                .url(f"/d/{other}")
                .keep_time(True)
                .include_vars(True)
                .as_dropdown(False)
                .target_blank(False)
            )
    number, y = 0, 0
    for height, panels in rows:
        x = 0
        for width, panel in panels:
            number += 1  # the SDK leaves `id` empty, and links to panels need it
            d = d.with_panel(panel.id(number).grid_pos(model.GridPos(x=x, y=y, w=width, h=height)))
            x += width
        y += height
    built: dict[str, Any] = d.build().to_json()
    built["schemaVersion"] = 39  # Grafana 10 to 12 load and migrate it
    return built


def _openings() -> Any:
    """Return an annotation that marks in each graph when a circuit opened."""
    opened = f'hub_breaker_transitions_total{{{ENV}, service=~"$service", to_state="open"}}'
    return (
        dashboard.AnnotationQuery()
        .name("Circuits opened")
        .datasource(SOURCE)
        .enable(True)
        .icon_color(RED)
        .expr(f"sum by (environment, service) (increase({opened}[$__rate_interval])) > 0")
    )


def _environment() -> Any:
    """One hub of several in one Prometheus. All: also series without the label."""
    return (
        dashboard.QueryVariable("environment")
        .label("Environment")
        .datasource(SOURCE)
        .query({"query": "label_values(hub_exporter_collector_up, environment)", "refId": "environment"})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(False)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(selected=True, text="All", value="$__all"))
    )


def _service(single: bool) -> Any:
    v = (
        dashboard.QueryVariable("service")
        .label("Service")
        .datasource(SOURCE)
        .query({"query": f"label_values(hub_breaker_state{{{ENV}}}, service)", "refId": "service"})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(not single)
        .include_all(not single)
    )
    if not single:
        v = v.all_value(".*").current(model.VariableOption(selected=True, text="All", value="$__all"))
    return v
