"""Long work says how far it is."""

import io
import threading

import pytest

from foredraft.progress import line, progress


class Heard(io.StringIO):
    """A file that tells when something was written."""

    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self.came = threading.Event()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def flush(self) -> None:
        self.came.set()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (("training", False, 30.0, 120.0, "loss 1.2", 10.0, 10.0), "training: 25%, 10 s, about 30 s to go, loss 1.2"),
        (("tuning", True, 7, 40, "", 30.0, 21.0), "tuning: 7 of 40, 30 s, about 99 s to go"),
        (("fleet", False, 0.0, 0.0, "", 12.0, 12.0), "fleet: 12 s"),
        (("fleet", False, 1.0, 1.0, "done", 12.0, 2.0), "fleet: 100%, 12 s, done"),
    ],
)
def test_a_line_says_what_how_far_and_how_much_longer(
    said: tuple[str, bool, float, float, str, float, float], expected: str
) -> None:
    assert line(*said) == expected


def test_without_a_terminal_lines_come_even_of_work_that_says_nothing() -> None:
    out = Heard()
    with progress("silent", stream=out, every_s=0.001) as show:
        assert out.came.wait(30.0)
        show(3.0, 10.0, "words")
        while "30%, " not in out.getvalue():
            out.came.clear()
            assert out.came.wait(30.0)
    first, *_, last = out.getvalue().splitlines()
    assert first == "silent: 0 s"
    assert last.startswith("silent: 30%, 0 s")
    assert last.endswith("words")
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_short_work_writes_no_line() -> None:
    out = Heard()
    with progress("short", stream=out) as show:
        show(1.0, 2.0, "")
    assert out.getvalue() == ""


def test_on_a_terminal_it_is_a_bar_that_goes() -> None:
    out = Heard(terminal=True)
    with progress("shown", count=True, stream=out) as show:
        show(1.0, 2.0, "words")
    assert "shown" in out.getvalue()
    assert "1/2" in out.getvalue()
