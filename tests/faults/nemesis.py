"""What goes wrong, by the dice of a seed. Every fault ends healed, and says when it began and ended and what it was."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pika.exceptions

from tests.faults.rig import Process, Rig
from tests.support.waiting import eventually

Fault = Callable[["Nemesis"], str]


class Nemesis:
    """Does one fault after the other."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig = rig
        self.dice = random.Random(f"{seed}/nemesis")
        self.done: list[dict[str, Any]] = []

    def strike(self, kind: str) -> None:
        """One fault, from its beginning to its healing."""
        begin = time.time()
        detail = FAULTS[kind](self)
        self.done.append({"kind": kind, "start": begin, "end": time.time(), "detail": detail})

    def put_clocks_right(self) -> list[str]:
        """Move every clock back to the true time; whose was wrong."""
        moved = [(p.name, p.clock) for p in self.rig.processes() if p.clock is not None and p.clock.offset]
        for _, clock in moved:
            clock.move(0.0)
        return [name for name, _ in moved]

    def seconds(self, low: float, high: float) -> float:
        """Let time pass under the fault."""
        chosen = self.dice.uniform(low, high)
        time.sleep(chosen)
        return chosen

    def victim(self) -> Process:
        """One that runs; there is no glory in killing the dead."""
        eventually(lambda: any(v.pid for v in self.rig.victims()), "a living worker")
        return self.dice.choice([v for v in self.rig.victims() if v.pid] or self.rig.victims())


def kill_worker(nemesis: Nemesis) -> str:
    victim = nemesis.victim()
    return f"{victim.name} {victim.signal(signal.SIGKILL)}"


def kill_leader(nemesis: Nemesis) -> str:
    leader = nemesis.rig.leader()
    if leader is None or leader not in nemesis.rig.victims():
        leader = nemesis.victim()
    return f"{leader.name} {leader.signal(signal.SIGKILL)}"


def kill_producer(nemesis: Nemesis) -> str:
    return str(nemesis.rig.producer.signal(signal.SIGKILL))


def kill_web(nemesis: Nemesis) -> str:
    return str(nemesis.rig.web.signal(signal.SIGKILL))


def kill_scheduler(nemesis: Nemesis) -> str:
    return str(nemesis.rig.scheduler.signal(signal.SIGKILL)) if nemesis.rig.scheduler else "none"


def stop_worker(nemesis: Nemesis) -> str:
    """Gracefully: nothing of this may show."""
    victim = nemesis.victim()
    victim.terminate()
    return victim.name


def pause_worker(nemesis: Nemesis) -> str:
    victim = nemesis.victim()
    pid = victim.signal(signal.SIGSTOP)
    seconds = nemesis.seconds(0.5, 5.0)
    victim.signal(signal.SIGCONT)
    return f"{victim.name} {pid} {seconds:.1f} s"


def restart_rabbit(nemesis: Nemesis) -> str:
    how = nemesis.dice.choice(("stop", "kill"))
    getattr(nemesis.rig.rabbit, how)()
    nemesis.seconds(0, 1.5)
    nemesis.rig.rabbit.start()
    return how


def restart_postgres(nemesis: Nemesis) -> str:
    how = nemesis.dice.choice(("stop", "kill"))
    getattr(nemesis.rig.postgres, how)()
    nemesis.seconds(0, 1.5)
    nemesis.rig.postgres.start()
    eventually(lambda: _answers(nemesis.rig), "PostgreSQL's return")
    return how


def _answers(rig: Rig) -> bool:
    with contextlib.suppress(Exception):
        return rig.number("SELECT 1") == 1
    return False


def lose_queue(nemesis: Nemesis) -> str:
    how = nemesis.dice.choice(("queue_delete", "queue_purge"))
    with contextlib.suppress(pika.exceptions.AMQPError), nemesis.rig.channel() as channel:
        getattr(channel, how)("hub.dispatch")
    return how


def _links(nemesis: Nemesis, of: str) -> tuple[list[Any], str]:
    """All links to a server, or one process's."""
    links = nemesis.rig.db_links if of == "db" else nemesis.rig.broker_links
    number = nemesis.dice.randrange(len(links) + 1)
    return (links, "all") if number == len(links) else ([links[number]], str(number))


def _disturb(nemesis: Nemesis, of: str) -> str:
    links, which = _links(nemesis, of)
    how = nemesis.dice.choice(("cut", "refuse", "hold", "delay"))
    if how == "hold":
        for link in links:
            nemesis.rig.links.hold(link, True)
        nemesis.seconds(0.5, 5)
        for link in links:
            nemesis.rig.links.hold(link, False)
        if nemesis.dice.random() < 0.5:  # what was held comes late, or never
            how = "hold and cut"
    elif how == "delay":
        for link in links:
            link.delay = nemesis.dice.uniform(0.02, 0.3)
        nemesis.seconds(1, 3)
        for link in links:
            link.delay = 0.0
    if how != "delay" and how != "hold":
        for link in links:
            link.refusing = how == "refuse"
            nemesis.rig.links.cut(link)
        if how == "refuse":
            nemesis.seconds(0.5, 5)
            for link in links:
                link.refusing = False
    return f"{how} {which}"


def disturb_db(nemesis: Nemesis) -> str:
    return _disturb(nemesis, "db")


def disturb_broker(nemesis: Nemesis) -> str:
    return _disturb(nemesis, "broker")


def memory_alarm(nemesis: Nemesis) -> str:
    rabbit = nemesis.rig.rabbit
    rabbit.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    seconds = nemesis.seconds(0.5, 3)
    rabbit.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
    return f"{seconds:.1f} s"


def disk_alarm(nemesis: Nemesis) -> str:
    rabbit = nemesis.rig.rabbit
    rabbit.ctl("set_disk_free_limit", "1000000GB")
    seconds = nemesis.seconds(0.5, 3)
    rabbit.ctl("set_disk_free_limit", "10MB")
    return f"{seconds:.1f} s"


def move_clock(nemesis: Nemesis) -> str:
    """One clock or several jump up to two hours, while their processes run, and stay so until this comes again."""
    right = nemesis.put_clocks_right()
    told = []
    processes = nemesis.rig.processes()
    for process in nemesis.dice.sample(processes, nemesis.dice.randint(1, len(processes))):
        seconds = nemesis.dice.uniform(-7200.0, 7200.0)
        if process.clock is not None:
            process.clock.move(seconds)
            told.append(f"{process.name} {seconds:+.0f} s")
    nemesis.seconds(0.3, 1.0)
    return ", ".join([*told, *(f"{name} back" for name in right)])


FAULTS: dict[str, Fault] = {
    "kill_worker": kill_worker,
    "kill_leader": kill_leader,
    "kill_producer": kill_producer,
    "kill_web": kill_web,
    "kill_scheduler": kill_scheduler,
    "stop_worker": stop_worker,
    "pause_worker": pause_worker,
    "restart_rabbit": restart_rabbit,
    "restart_postgres": restart_postgres,
    "lose_queue": lose_queue,
    "disturb_db": disturb_db,
    "disturb_broker": disturb_broker,
    "memory_alarm": memory_alarm,
    "disk_alarm": disk_alarm,
    "move_clock": move_clock,
}
# Who lives through these has no excuse for a leak.
GENTLE = (
    "restart_rabbit",
    "restart_postgres",
    "lose_queue",
    "disturb_db",
    "disturb_broker",
    "memory_alarm",
    "disk_alarm",
    "move_clock",
)
# After these a worker may have sent what the ledger does not know; after the others it may not.
LOSES_WORK = ("kill_worker", "kill_leader", "pause_worker", "restart_postgres", "disturb_db")
