"""Work with an end: what it says in time, what it raises, and that it is stopped."""

import threading
import time

import pytest

from foredraft.text.time_limit import OutOfTimeError, within


def test_what_is_done_in_time_is_given_back_or_raised() -> None:
    assert within(10.0, lambda: "done") == "done"
    with pytest.raises(ValueError, match="invalid literal"):
        within(10.0, lambda: int("x"))


def test_what_takes_too_long_is_stopped_and_leaves_no_thread() -> None:
    ended = threading.Event()

    def spin() -> None:
        try:
            while True:
                time.sleep(0.001)
        finally:
            ended.set()

    with pytest.raises(OutOfTimeError, match=r"0\.05 s"):
        within(0.05, spin)
    assert ended.wait(10.0)
    assert "limited" not in [thread.name for thread in threading.enumerate() if thread.is_alive()]
