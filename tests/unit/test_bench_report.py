"""What `make bench` writes: medians, ratios, bars. No rate is asserted: machines differ."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench import report
from tests.bench.__main__ import chosen, measure
from tests.bench.row import Numbers, Row, Scale

RUNS = {
    "hub": [{"per_second": 100.0, "sent_per_second": 9.0}, {"per_second": 300.0}, {"per_second": 200.0}],
    "bare_dramatiq": [{"per_second": 100.0}],
    "celery": [{"per_second": 160.0}],
    "neighbour_alone": [{"per_second": 100.0, "p99_ms": 10.0}],
    "neighbour_hanging": [{"per_second": 95.0, "p99_ms": 15.0}],
    "latency": [],
}


def test_a_row_is_the_median_of_its_runs() -> None:
    rows = report.document(RUNS)["rows"]
    assert rows["hub"] == {"per_second": 200.0, "sent_per_second": 9.0, "runs": 3}
    assert "latency" not in rows, "a row that was not measured is left out"


def test_ratios_and_bars_follow_from_the_rows_that_there_are() -> None:
    result = report.document(RUNS)
    assert result["ratios"] == {"hub/bare_dramatiq": 2.0, "hub/celery": 1.25, "neighbour_hanging/alone": 0.95}
    assert result["bars"] == {
        "hub/bare_dramatiq >= 1": True,
        "hub/celery >= 1.5": False,
        "neighbour_hanging/alone >= 0.9": True,
        "neighbour_hanging.p99_times <= 2": True,
    }


def test_the_file_can_be_read_again_and_the_table_names_every_row(tmp_path: Path) -> None:
    result = report.document(RUNS, report.about(1.0, quick=True))
    report.write(tmp_path / "bench.json", result)
    assert json.loads((tmp_path / "bench.json").read_text()) == result
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    shown = io.StringIO()
    report.show(result, {"hub": "everything on"}, Console(file=shown, width=150))
    for text in (*result["rows"], "everything on", "MISSED", "hub/celery"):
        assert text in shown.getvalue()


def _row(name: str, rounds: int, order: list[str]) -> Row:
    def run(rig: object, scale: Scale) -> dict[str, float]:
        order.append(name)
        if name == "broken":
            raise RuntimeError("it fails")
        return {"per_second": float(len(order))}

    return Row(name, name, run, rounds)


def test_rows_are_measured_by_turns_and_a_failing_one_stops_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []
    rows = [_row("a", 2, order), _row("broken", 1, order), _row("b", 2, order)]
    kept: list[dict[str, list[Numbers]]] = []
    assert measure(rows, None, Scale(), kept.append), "one failed"
    assert order == ["a", "broken", "b", "a", "b"] and len(kept) == 4
    assert kept[-1]["a"] == [{"per_second": 1.0}, {"per_second": 4.0}] and kept[-1]["broken"] == []
    assert "broken: RuntimeError: it fails" in capsys.readouterr().err
    order.clear()
    measure(rows, None, Scale.small(), kept.append)
    assert order == ["a", "broken", "b"]


def test_rows_are_chosen_by_name_or_by_a_beginning() -> None:
    known = [_row(name, 1, []) for name in ("hub", "hub_x", "slow_hub", "slow_celery")]
    assert chosen(known, "") == known
    assert [row.name for row in chosen(known, "slow, hub")] == ["slow_hub", "slow_celery", "hub"]
    with pytest.raises(SystemExit, match="no row 'nothing'"):
        chosen(known, "nothing")
