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
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from foredraft.errors import ConfigError
from foredraft.links.shaping import DirectionReport, ProxyReport, Shape, Shaper, percentile

SPIN_S: Final = 0.0003  # polled before a chunk is due; sleeping overshoots by 0.1 ms
QUEUE_BYTES: Final = 256 << 10  # on the way in one direction of a connection; then the sender waits
PACKET_BYTES: Final = 1448  # what is serialised at once on a link with a rate
CHUNK_BYTES: Final = 1 << 16
MAX_CONNECTIONS: Final = 128  # select() serves file numbers below 1024
_SAMPLES: Final = 100_000


class _Flow:
    """One direction of one connection: what was read from ``source`` and is not yet in ``sink``."""

    def __init__(self, source: socket.socket, sink: socket.socket, line: "_Line") -> None:
        self.source = source
        self.sink = sink
        self._line = line
        self._queue: deque[tuple[float, float, bytes]] = deque()  # due, arrived, data; empty data: the end
        self._rest = b""  # of a chunk that was due, but did not fit into the sink
        self._queued_bytes = 0
        self._last_due_s = 0.0
        self._ended = False
        self.blocked = False
        self.finished = False

    @property
    def wants_data(self) -> bool:
        return not self._ended and self._queued_bytes < QUEUE_BYTES

    @property
    def due_s(self) -> float | None:
        """When something must be released next."""
        return self._queue[0][0] if self._queue and not self.blocked else None

    def read(self, now_s: float) -> None:
        """Take what has arrived. Raises OSError when the source is broken."""
        try:
            data = self.source.recv(self._line.chunk_bytes)
        except BlockingIOError:
            return
        self._ended = not data
        self._last_due_s = self._line.shaper.due_s(now_s, len(data), self._last_due_s)
        self._queue.append((self._last_due_s, now_s, data))
        self._queued_bytes += len(data)

    def release(self, clock: Callable[[], float]) -> None:
        """Send what is due. Raises OSError when the sink is broken."""
        while not self.blocked:
            if not self._rest:
                now_s = clock()
                if not self._queue or self._queue[0][0] > now_s:
                    return
                due_s, arrived_s, self._rest = self._queue.popleft()
                if not self._rest:
                    self.finished = True
                    self.sink.shutdown(socket.SHUT_WR)
                    return
                self._line.note(now_s - due_s, now_s - arrived_s, len(self._rest))
            try:
                sent = self.sink.send(self._rest)
            except BlockingIOError:
                sent = 0
            self._rest = self._rest[sent:]
            self._queued_bytes -= sent
            self.blocked = bool(self._rest)


class _Line:
    """One direction of the emulated link, for all connections, and how well it kept its times."""

    def __init__(self, shape: Shape, seed: str) -> None:
        self.shaper = Shaper(shape, seed)
        self.chunk_bytes = CHUNK_BYTES if shape.rate_bps is None else PACKET_BYTES
        self._size_bytes = 0
        self._late_s: deque[float] = deque(maxlen=_SAMPLES)
        self._delay_s: deque[float] = deque(maxlen=_SAMPLES)

    def note(self, late_s: float, delay_s: float, size_bytes: int) -> None:
        self._late_s.append(late_s)
        self._delay_s.append(delay_s)
        self._size_bytes += size_bytes

    def report(self) -> DirectionReport:
        late, delay = sorted(self._late_s.copy()), sorted(self._delay_s.copy())
        return DirectionReport(
            chunks=len(late),
            size_bytes=self._size_bytes,
            delay_p50_s=percentile(delay, 0.5),
            late_p50_s=percentile(late, 0.5),
            late_p99_s=percentile(late, 0.99),
        )


class _Connection:
    """An edge's connection to the proxy and the proxy's to the target."""

    def __init__(self, edge: socket.socket, target: tuple[str, int], up: _Line, down: _Line) -> None:
        self.edge = edge
        self.cloud = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET)
        for end in (self.edge, self.cloud):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.flows = (_Flow(self.edge, self.cloud, up), _Flow(self.cloud, self.edge, down))
        self.connecting = True
        self.cloud.connect_ex(target)

    def finish_connecting(self) -> None:
        """The target has answered. Raises OSError when it did not take the connection."""
        error = self.cloud.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        self.connecting = False

    def close(self, *, reset: bool) -> None:
        for end in (self.edge, self.cloud):
            if reset:  # no waiting, no goodbye: the other side sees a broken connection
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()


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
        self._up, self._down = _Line(up, f"{seed} up"), _Line(down, f"{seed} down")
        self._connections: list[_Connection] = []
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
        connection: _Connection,
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
            connection = _Connection(edge, self._target, self._up, self._down)
            self._connections.append(connection)
            if self._refusing or len(self._connections) > MAX_CONNECTIONS:
                self._drop(connection)

    def _cut(self) -> None:
        for connection in self._connections.copy():
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
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
