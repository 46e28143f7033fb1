"""Run tasks in the threads of the command, with the same attempts and the same lease as in a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TypeVar

from hub.cli.common import progress
from hub.cli.output import cell, err

if TYPE_CHECKING:
    from hub.app.lifecycle import Hub
    from hub.models import Claim

T = TypeVar("T")
_PAGE = 200
_SHOWN = 20


def dispatch(hub: Hub, ids: list[int] | None, *, failed: bool, parallel: int) -> dict[str, Any]:
    """Run one attempt of each task: the tasks of `ids`, those that failed, or all that are due.

    A task is claimed when a thread is free for it. Until then workers may run it.
    """
    from hub.errors import NotFoundError

    for id_ in ids or []:
        if not hub.admin.exists(id_):
            raise NotFoundError(f"no task {id_}")
    hub.admin.note_run(ids, failed=failed)
    results: list[dict[str, Any]] = []
    counts = dict.fromkeys(("delivered", "failed", "dead", "parked", "skipped", "elsewhere"), 0)

    def claims() -> Iterator[Claim]:
        for id_ in ids if ids is not None else _wanted(hub, failed):
            claim = hub.ledger.claim_now(id_)
            if claim is not None:
                yield claim
            elif ids is not None or hub.admin.waits(id_):
                results.append(_not_run(hub, id_))
            else:
                counts["elsewhere"] += 1

    hub.lease.start()
    try:
        _each(claims(), lambda claim: _attempt(hub, claim), results.append, parallel)
    finally:
        hub.lease.stop()
    for result in results:
        counts[result["result"]] += 1
    return {"ran": sum("attempt" in result for result in results), **counts, "tasks": results}


def _wanted(hub: Hub, failed: bool) -> Iterator[int]:
    """Ids of tasks that are due, or that failed before; each once."""
    after = 0
    while page := hub.admin.due(failed=failed, after=after, limit=_PAGE):
        after = page[-1][0]
        yield from (id_ for id_, _ in page)


def _not_run(hub: Hub, task_id: int) -> dict[str, Any]:
    """Why a task was not run: it waits for its rule or service, or a worker was faster."""
    waiting = [row for row in hub.views.tasks.of_ids([task_id]) if row["state"] != "running"]
    if waiting:
        return {"id": task_id, "result": "skipped", "error": waiting[0]["waits_for"]}
    return {"id": task_id, "result": "elsewhere", "error": "a worker has claimed it"}


def _attempt(hub: Hub, claim: Claim) -> dict[str, Any]:
    from hub.pipeline.attempts import FailedAttempt

    row: dict[str, Any] = {"id": claim.id, "result": None, "error": None, "attempt": claim.attempt}
    outcome = hub.dispatcher.attempt(claim)
    if isinstance(outcome, FailedAttempt):
        row |= {"result": hub.attempts.record(outcome), "error": str(outcome.error)}
    else:
        row["result"] = outcome
    last = hub.views.deliveries.list(task=claim.id, limit=1) if row["result"] != "parked" else []
    seen = last[0] if last and last[0]["attempt"] == claim.attempt else {}
    names = ("status", "latency_ms", "method", "endpoint", "request_body", "response_body")
    return row | {name: seen.get(name) for name in names}


def bad(result: dict[str, Any]) -> bool:
    """Whether anything of a run failed; the command then exits with 1."""
    return any(result.get(word, 0) for word in ("failed", "dead", "error"))


def print_each(results: list[dict[str, Any]]) -> None:
    """Print payload and response of the first tasks."""
    for result in [r for r in results if "attempt" in r][:_SHOWN]:
        line = f"task {result['id']} attempt {result['attempt']}: {result['result']}"
        if result["status"] is not None:
            line += f", status {result['status']}"
        print(cell(line, width=None))
        for label, name in (("payload", "request_body"), ("response", "response_body")):
            if result[name]:
                print(f"  {label}: {cell(result[name], width=500)}")


def tell(results: list[dict[str, Any]]) -> None:
    """Print errors on stderr."""
    failures = [result for result in results if result["error"]]
    for result in failures[:_SHOWN]:
        what = f"task {result['id']}" if "id" in result else f"service {result['service']}"
        err.print(cell(f"{what}: {result['result']}: {result['error']}", width=300), markup=False)
    if len(failures) > _SHOWN:
        err.print(f"... and {len(failures) - _SHOWN} more; `hub tasks failures` and `hub dlq list` show them")


def consume(hub: Hub, *, parallel: int) -> dict[str, Any]:
    """Read every response queue once."""
    from hub.inbound.consumer import response_services
    from hub.scheduling.schedule import CONSUME

    hub.schedules.started(CONSUME)
    results: list[dict[str, Any]] = []

    def read(service_id: int) -> dict[str, Any]:
        service = hub.configuration.service_by_id(service_id)
        result = hub.consume(service_id)
        outcome = result.outcome if result else "skipped"
        stored = result.stored + result.malformed if result else 0
        return {
            "service": service.name if service else None,
            "result": outcome,
            "messages": stored,
            "error": result.error if result else None,
        }

    services = response_services(hub.configuration.services())
    _each(iter([s.id for s in services]), read, results.append, parallel)
    if not services:
        hub.schedules.finished(CONSUME, "ok")
    counts = {word: sum(r["result"] == word for r in results) for word in ("ok", "error", "skipped")}
    return {"ran": len(results), **counts, "messages": sum(r["messages"] for r in results), "services": results}


def run_housekeeping(hub: Hub) -> dict[str, Any]:
    """Run housekeeping once."""
    from hub.scheduling.schedule import HOUSEKEEPING

    hub.schedules.started(HOUSEKEEPING)
    gone = hub.housekeeping.run()
    return {"ran": 1, "skipped": int(gone is None), **(gone or {})}


def _each(
    items: Iterator[T],
    act: Callable[[T], dict[str, Any]],
    done: Callable[[dict[str, Any]], None],
    parallel: int,
) -> None:
    """Run `act` on every item, `parallel` at once. After Ctrl-C nothing new starts; running items are finished."""
    with ThreadPoolExecutor(parallel, thread_name_prefix="hub-run") as pool, progress("tasks") as (bar, task):
        under_way: set[Future[dict[str, Any]]] = set()
        try:
            for item in items:
                under_way.add(pool.submit(act, item))
                if len(under_way) >= parallel:
                    ended, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in ended:
                        done(future.result())
                        bar.advance(task)
            for future in under_way:
                done(future.result())
                bar.advance(task)
        except KeyboardInterrupt:
            err.print("stopping: running attempts are finished first")
            raise
