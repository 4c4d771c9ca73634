"""Work on what strangers made, in a process of its own, bounded in time and memory.

A regular expression that backtracks, a list that doubles or a file that unpacks to gigabytes cannot be stopped within
a process: libraries hold Python's lock while they work, and abort where there is no memory. A process can be ended.

``Confined`` is the asking side. The module that it names calls ``serve`` where it is run as a program.
"""

import os
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import IO, Final

MAX_ANSWER_BYTES: Final = 32 << 20
_MOST_QUESTION_BYTES: Final = 1 << 30
_START_S: Final = 60.0
_LENGTH: Final = struct.Struct(">I")
_READY: Final = b"ready"


class OutOfBoundsError(Exception):
    """There is no answer within the bounds; the text says which of them was reached."""


class Confined:
    """A module that answers, in a process that starts with the first question and anew after one that was ended.

    ``greeting``: what each process is asked first, which may take ``greeting_s``. Any thread may ask; one question at a
    time is answered.
    """

    def __init__(
        self,
        module: str,
        limit_s: float,
        memory_bytes: int,
        *,
        greeting: bytes | None = None,
        greeting_s: float = 0.0,
    ) -> None:
        self._module, self._limit_s, self._memory_bytes = module, limit_s, memory_bytes
        self._greeting, self._greeting_s = greeting, greeting_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._greeted = b""
        self._end: Callable[[], object] = lambda: None

    def ask(self, question: bytes) -> bytes:
        """The answer. Raises OutOfBoundsError."""
        with self._lock:
            return self._exchange(self._running(), question, self._limit_s)

    def greeted(self) -> bytes:
        """The answer to the greeting. Raises OutOfBoundsError."""
        with self._lock:
            self._running()
            return self._greeted

    def close(self) -> None:
        """End the process; another question starts a new one."""
        with self._lock:
            self._end()
            self._process = None

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        longest_s = max(self._limit_s, self._greeting_s)
        # Not in the terminal's group, whose Ctrl-C is for us; -P: nothing is imported from the current folder.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", self._module, str(longest_s), str(self._memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "MALLOC_ARENA_MAX": "1"},
        )
        self._process, self._end = process, weakref.finalize(self, _ended, process)
        if self._exchange(process, None, _START_S) != _READY:
            raise OutOfBoundsError("cannot be started")
        if self._greeting is not None:
            self._greeted = self._exchange(process, self._greeting, self._greeting_s)
        return process

    def _exchange(self, process: "subprocess.Popen[bytes]", question: bytes | None, limit_s: float) -> bytes:
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(limit_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            return _said(process, question)
        except (OSError, EOFError) as error:
            self._end()
            if late.is_set():
                raise OutOfBoundsError(f"takes more than {limit_s:g} s") from error
            if isinstance(error, _TooLongError):
                raise OutOfBoundsError(f"makes more than {MAX_ANSWER_BYTES >> 20} MB") from error
            raise OutOfBoundsError(f"takes more than {self._memory_bytes >> 20} MB, or breaks a library") from error
        except BaseException:  # the rest of an answer is not to be taken for the next one
            self._end()
            raise
        finally:
            timer.cancel()


class _TooLongError(OSError):
    """An answer that is too long to be read."""


def _said(process: "subprocess.Popen[bytes]", question: bytes | None) -> bytes:
    if process.stdin is None or process.stdout is None:
        raise EOFError
    if question is not None:
        _write(process.stdin, question)
    return _read(process.stdout, MAX_ANSWER_BYTES)


def _ended(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for end in (process.stdin, process.stdout):
        if end is not None:
            try:
                end.close()
            except OSError:  # what it was to be told has not gone out
                continue


def _write(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def _read(pipe: IO[bytes], most_bytes: int) -> bytes:
    """Raises EOFError at the end, and _TooLongError."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    if length > most_bytes:
        raise _TooLongError
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data


def serve(answer: Callable[[bytes], bytes]) -> None:
    """Answer questions until there are no more: what a module does that ``Confined`` runs as a program."""
    limit_s, memory_bytes = float(sys.argv[1]), int(sys.argv[2])
    _bound_memory(memory_bytes)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    _write(answers, _READY)
    while True:
        try:
            question = _read(sys.stdin.buffer, _MOST_QUESTION_BYTES)
        except EOFError:
            return
        _bound_time(limit_s)
        _write(answers, answer(question))


def _bound_memory(memory_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows bounds no process like this
        return
    for kind, most in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _bound_time(limit_s: float) -> None:
    """For the case that nobody is left who would end us: the next answer takes so much of a core at most."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    most = int(used.ru_utime + used.ru_stime + limit_s) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
