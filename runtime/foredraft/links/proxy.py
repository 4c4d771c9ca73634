"""A TCP proxy that behaves like a slow link: delay, jitter and rate, each direction by itself.

Event loops round their timers to a millisecond and share them with whatever else runs, so the
proxy has a loop of its own: ``select`` until shortly before a chunk is due, then poll. It runs
in a thread for tests, and in a process (``proxy_process``) wherever times are measured.

Only the connection's bytes are shaped; TCP's own handshake with the proxy is local.
"""

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from foredraft.errors import ConfigError
from foredraft.links.forwarding import Connection, Line
from foredraft.links.shaping import ProxyReport, Shape

SPIN_S: Final = 0.00005  # polled before a chunk is due; more of it would take a core from the two ends
MAX_CONNECTIONS: Final = 128  # select() serves file numbers below 1024


class ShapingProxy:
    """Forwards TCP connections to a target, shaped. Listens from the start; ``run`` forwards.

    ``cut``, ``refuse``, ``resume``, ``stop`` and ``report`` may be called from any thread.
    Raises ConfigError when it cannot listen.
    """

    def __init__(
        self,
        target_host: str,
        target_port: int,
        *,
        up: Shape,
        down: Shape,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clock = clock
        self._up, self._down = Line(up, f"{seed} up"), Line(down, f"{seed} down")
        self._connections: list[Connection] = []
        self._refusing = self._stopping = self._realtime = False
        self._commands: deque[Callable[[], None]] = deque()
        try:
            self._target: tuple[str, int] = (
                str(socket.getaddrinfo(target_host, target_port, type=socket.SOCK_STREAM)[0][4][0]),
                target_port,
            )
            self._listener = socket.create_server((host, port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host} port {port} for {target_host}:{target_port}: {error}"
            ) from error
        self._listener.setblocking(False)
        self._wake_in, self._wake_out = socket.socketpair()
        self.host, self.port = host, int(self._listener.getsockname()[1])

    def cut(self) -> None:
        """Break all connections, with what is on the way."""
        self._command(self._cut)

    def refuse(self) -> None:
        """Take no new connections: whoever connects is cut at once."""
        self._command(lambda: setattr(self, "_refusing", True))

    def resume(self) -> None:
        """Take new connections again."""
        self._command(lambda: setattr(self, "_refusing", False))

    def stop(self) -> None:
        """End ``run``."""
        self._command(lambda: setattr(self, "_stopping", True))

    def report(self) -> ProxyReport:
        """What was achieved so far."""
        return ProxyReport(self._up.report(), self._down.report(), self._realtime)

    def _command(self, action: Callable[[], None]) -> None:
        self._commands.append(action)
        with contextlib.suppress(OSError):  # it has ended
            self._wake_in.send(b"!")

    def run(self, *, realtime: bool = False) -> None:
        """Forward until ``stop`` or Ctrl-C. ``realtime`` asks for real-time scheduling of this thread."""
        if realtime:
            self._ask_for_realtime()
        try:
            while not self._stopping:
                self._step()
        except KeyboardInterrupt:
            pass
        finally:
            self._cut()
            for end in (self._listener, self._wake_in, self._wake_out):
                end.close()

    def _ask_for_realtime(self) -> None:
        """On a busy machine an ordinary thread is released milliseconds late. Needs CAP_SYS_NICE."""
        with contextlib.suppress(AttributeError, OSError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            self._realtime = True

    def _step(self) -> None:
        """Wait for the next thing, and do it."""
        due_s = [flow.due_s for connection in self._connections for flow in connection.flows]
        pending = [due for due in due_s if due is not None]
        wait_s = max(min(pending) - self._clock() - SPIN_S, 0.0) if pending else None
        readable, writable, _ = select.select(*self._interests(), [], wait_s)
        now_s = self._clock()
        if self._wake_out in readable:
            self._wake_out.recv(4096)
            while self._commands:
                self._commands.popleft()()
        if self._listener in readable:
            self._accept()
        for connection in self._connections.copy():
            try:
                self._serve(connection, readable, writable, now_s)
            except OSError:
                self._drop(connection)

    def _interests(self) -> tuple[list[socket.socket], list[socket.socket]]:
        reading, writing = [self._listener, self._wake_out], []
        for connection in self._connections:
            if connection.connecting:
                writing.append(connection.cloud)
                continue
            for flow in connection.flows:
                if flow.wants_data:
                    reading.append(flow.source)
                if flow.blocked:
                    writing.append(flow.sink)
        return reading, writing

    def _serve(
        self,
        connection: Connection,
        readable: list[socket.socket],
        writable: list[socket.socket],
        now_s: float,
    ) -> None:
        if connection.connecting:
            if connection.cloud in writable:
                connection.finish_connecting()
            return
        for flow in connection.flows:
            if flow.source in readable:
                flow.read(now_s)
            if flow.sink in writable:
                flow.blocked = False
            flow.release(self._clock)
        if all(flow.finished for flow in connection.flows):
            self._connections.remove(connection)
            connection.close(reset=False)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # gone before it was taken
            edge, _ = self._listener.accept()
            connection = Connection(edge, self._target, self._up, self._down)
            self._connections.append(connection)
            if self._refusing or len(self._connections) > MAX_CONNECTIONS:
                self._drop(connection)

    def _cut(self) -> None:
        for connection in self._connections.copy():
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
            connection.close(reset=True)


@contextlib.contextmanager
def run_proxy_in_thread(proxy: ShapingProxy) -> Iterator[ShapingProxy]:
    """The proxy forwards in a thread of its own until the block ends. It shares the interpreter's
    lock, so for measured times use ``proxy_process``."""
    thread = threading.Thread(target=proxy.run, name="shaping proxy", daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join()
