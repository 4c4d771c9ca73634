"""The thread that device work runs on."""

import asyncio
import gc
import threading
from typing import Any

import pytest

from foredraft.engines.worker_thread import WorkerThread


async def test_jobs_run_in_order_on_the_one_thread() -> None:
    worker, loop, ran = WorkerThread("lane"), asyncio.get_running_loop(), list[tuple[int, str]]()

    def job(number: int) -> None:
        ran.append((number, threading.current_thread().name))

    await asyncio.gather(*(loop.run_in_executor(worker, job, number) for number in range(20)))
    assert ran == [(number, "lane") for number in range(20)]
    worker.shutdown()


async def test_what_a_job_raises_reaches_whoever_waits_and_the_thread_goes_on() -> None:
    worker, loop = WorkerThread("lane"), asyncio.get_running_loop()
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(worker, divmod, 1, 0)
    assert await loop.run_in_executor(worker, divmod, 7, 3) == (2, 1)
    worker.shutdown()


async def test_a_job_cancelled_in_the_line_never_runs_and_one_that_has_begun_ends() -> None:
    worker, loop = WorkerThread("lane"), asyncio.get_running_loop()
    began, gate, ran = threading.Event(), threading.Event(), list[str]()

    def first() -> None:
        began.set()
        gate.wait(30)
        ran.append("first")

    running = loop.run_in_executor(worker, first)
    waiting = loop.run_in_executor(worker, ran.append, "second")
    await asyncio.to_thread(began.wait, 30)
    running.cancel()
    waiting.cancel()
    gate.set()
    await loop.run_in_executor(worker, ran.append, "third")
    assert ran == ["first", "third"]
    worker.shutdown()


async def test_shutdown_lets_the_line_end_and_then_refuses() -> None:
    worker, loop, ran = WorkerThread("lane"), asyncio.get_running_loop(), list[int]()
    jobs = [loop.run_in_executor(worker, ran.append, number) for number in range(5)]
    worker.shutdown()
    worker.shutdown()
    assert ran == list(range(5))
    await asyncio.gather(*jobs)
    with pytest.raises(RuntimeError, match="after shutdown"):
        await loop.run_in_executor(worker, int)


def test_a_loop_that_was_closed_meanwhile_does_not_end_the_thread() -> None:
    worker, gate = WorkerThread("lane"), threading.Event()

    async def leave_behind() -> None:
        asyncio.get_running_loop().run_in_executor(worker, gate.wait, 30)

    asyncio.run(leave_behind())
    gate.set()

    async def visit() -> int:
        return await asyncio.get_running_loop().run_in_executor(worker, len, "abc")

    assert asyncio.run(visit()) == 3
    worker.shutdown()


def test_a_worker_that_nobody_holds_any_more_ends_its_thread() -> None:
    async def visit() -> threading.Thread:
        worker = WorkerThread("forgotten")
        return await asyncio.get_running_loop().run_in_executor(worker, threading.current_thread)

    thread = asyncio.run(visit())
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_it_serves_every_loop(run_on_each_loop: Any) -> None:
    worker = WorkerThread("lane")

    async def visit() -> int:
        return await asyncio.get_running_loop().run_in_executor(worker, len, "abc")

    assert run_on_each_loop(visit()) == 3
    worker.shutdown()
