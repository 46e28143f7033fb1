"""Tasks run by a command, in its own threads: the same attempts that workers make, under the same lease."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from hub.cli.common import cell, err, progress

if TYPE_CHECKING:
    from hub.app import Hub

_PAGE = 200
_TOLD = 20


def dispatch(hub: Hub, ids: list[int] | None, *, failed: bool, parallel: int) -> dict[str, Any]:
    """One attempt of each task: those of `ids`, those that failed, or all that are due."""
    from hub.errors import NotFoundError

    for id_ in ids or []:
        if not hub.admin.exists(id_):
            raise NotFoundError(f"no task {id_}")
    results: list[dict[str, Any]] = []
    hub.lease.start()
    try:
        _each(_wanted(hub, ids, failed), lambda id_: _attempt(hub, id_), results.append, parallel)
    finally:
        hub.lease.stop()
    counts = dict.fromkeys(("delivered", "failed", "dead", "parked", "skipped"), 0)
    for result in results:
        counts[result["result"]] += 1
    return {"ran": len(results), **counts, "tasks": results}


def _wanted(hub: Hub, ids: list[int] | None, failed: bool) -> Iterator[int]:
    """Ids, made due a page at a time, each once."""
    if ids is not None:
        yield from hub.admin.retry(ids)
        return
    after = 0
    while page := hub.admin.due(failed=failed, after=after, limit=_PAGE):
        after = page[-1][0]
        yield from hub.admin.retry([id_ for id_, _ in page])


def _attempt(hub: Hub, task_id: int) -> dict[str, Any]:
    from hub.dispatch import AttemptFailed

    try:
        return {"id": task_id, "result": hub.dispatcher.run(task_id), "error": None}
    except AttemptFailed as failure:
        hub.retries.settle(failure)
        again = hub.admin.exists(task_id)
        return {"id": task_id, "result": "failed" if again else "dead", "error": str(failure)}


def tell(results: list[dict[str, Any]]) -> None:
    """Why what failed failed, on stderr."""
    bad = [result for result in results if result["error"]]
    for result in bad[:_TOLD]:
        what = f"task {result['id']}" if "id" in result else f"service {result['service']}"
        err.print(cell(f"{what}: {result['result']}: {result['error']}", width=300), markup=False)
    if len(bad) > _TOLD:
        err.print(f"... and {len(bad) - _TOLD} more; `hub tasks fails` and `hub dlq list` show them")


def consume(hub: Hub, *, parallel: int) -> dict[str, Any]:
    """One run over every response queue."""
    from hub.responses import response_services
    from hub.schedule import CONSUME

    hub.schedules.started(CONSUME)
    results: list[dict[str, Any]] = []

    def read(service_id: int) -> dict[str, Any]:
        service = hub.registry.service_by_id(service_id)
        result = hub.consume(service_id)
        outcome = result.outcome if result else "skipped"
        stored = result.stored + result.malformed if result else 0
        return {"service": service.name if service else None, "result": outcome, "messages": stored,
                "error": result.error if result else None}  # fmt: skip

    services = response_services(hub.registry.services())
    _each(iter([s.id for s in services]), read, results.append, parallel)
    if not services:
        hub.schedules.finished(CONSUME, "ok")
    counts = {word: sum(r["result"] == word for r in results) for word in ("ok", "error", "skipped")}
    return {"ran": len(results), **counts, "messages": sum(r["messages"] for r in results), "services": results}


def keep_house(hub: Hub) -> dict[str, Any]:
    """One run of housekeeping."""
    from hub.schedule import HOUSEKEEPING

    hub.schedules.started(HOUSEKEEPING)
    gone = hub.keeper.run()
    return {"ran": 1, "skipped": int(gone is None), **(gone or {})}


def _each(
    items: Iterator[int],
    act: Callable[[int], dict[str, Any]],
    done: Callable[[dict[str, Any]], None],
    parallel: int,
) -> None:
    """`act` on every item, `parallel` at once. Interrupted, it begins nothing more and waits for what runs."""
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
            err.print("stopping: the attempts under way are finished first")
            raise
