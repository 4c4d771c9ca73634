"""What the shaping proxy holds: the emulated line, and each connection's bytes on their way over it."""

import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from foredraft.links.shaping import DirectionReport, Shape, Shaper, percentile

QUEUE_BYTES: Final = 256 << 10  # on the way in one direction of a connection; then the sender waits
PACKET_BYTES: Final = 1448  # what is serialised at once on a link with a rate
CHUNK_BYTES: Final = 1 << 16
_SAMPLES: Final = 100_000


class Flow:
    """One direction of one connection: what was read from ``source`` and is not yet in ``sink``."""

    def __init__(self, source: socket.socket, sink: socket.socket, line: "Line") -> None:
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


class Line:
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


class Connection:
    """An edge's connection to the proxy and the proxy's to the target."""

    def __init__(self, edge: socket.socket, target: tuple[str, int], up: Line, down: Line) -> None:
        self.edge = edge
        self.cloud = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET)
        for end in (self.edge, self.cloud):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.flows = (Flow(self.edge, self.cloud, up), Flow(self.cloud, self.edge, down))
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
