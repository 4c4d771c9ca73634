"""A program for the tests of confined work: it says who it is, and breaks each bound when it is told to."""

import os
import resource
import sys

from foredraft.text.confined import MAX_ANSWER_BYTES, serve


def answer(question: bytes) -> bytes:
    if question == b"spin":
        while True:
            pass
    if question == b"grow":
        held = []
        while True:
            held.append(bytearray(1 << 20))
    if question == b"long":
        return bytes(MAX_ANSWER_BYTES + 1)
    if question == b"end":
        os.abort()
    if question == b"seconds":
        used = resource.getrusage(resource.RUSAGE_SELF)
        return f"{resource.getrlimit(resource.RLIMIT_CPU)[0] - used.ru_utime - used.ru_stime}".encode()
    if question == b"path":
        return "\n".join(sys.path).encode()
    return f"{os.getpid()} ".encode() + question


serve(answer)
