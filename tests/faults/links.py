"""TCP links from the hub to its servers that a nemesis can slow down, hold, refuse and cut.

All links of a process run in one thread: an event loop that forwards bytes.
"""

from __future__ import annotations

import asyncio
import threading

Address = str | tuple[str, int]  # the path of a Unix socket, or host and port


class Link:
    """One way to one server. `port` is where it listens on 127.0.0.1."""

    def __init__(self, target: Address) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.refusing = False
        self.delay = 0.0
        self.port = 0

    async def listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            if isinstance(self._target, str):
                far_reader, far_writer = await asyncio.open_unix_connection(self._target)
            else:
                far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._writers |= both
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            self._writers -= both
            for one in both:
                one.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._open.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                sink.write(data)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()
        except OSError:
            sink.transport.abort()  # who is reset on one side is reset on the other

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def hold(self, held: bool) -> None:
        if held:
            self._open.clear()
        else:
            self._open.set()


class Links:
    """The thread and its links. Use as a context manager; every change is made in the loop's thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._all: list[tuple[Link, asyncio.Server]] = []

    def __enter__(self) -> Links:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            for link, server in self._all:
                server.close()
                link.hold(False)
                link.cut()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if others:
                await asyncio.wait(others, timeout=5)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def add(self, target: Address) -> Link:
        async def make() -> Link:
            link = Link(target)
            self._all.append((link, await link.listen()))
            return link

        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(10)

    def hold(self, link: Link, held: bool) -> None:
        self._loop.call_soon_threadsafe(link.hold, held)

    def cut(self, link: Link) -> None:
        self._loop.call_soon_threadsafe(link.cut)
