"""Text from elsewhere on a terminal: shown, and nothing more."""

import io
import logging
import sys

import pytest

from foredraft.cli import generated
from foredraft.cli.logs import set_up_logs
from foredraft.cli.main import complain
from foredraft.text.inert import inert


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with Umläuten und 日本語 🙂\n\tand a tab", "plain, with Umläuten und 日本語 🙂\n\tand a tab"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("over\rwritten\b\b", r"over\rwritten\x08\x08"),
        ("\x9b31m \x7f \x00", r"\x9b31m \x7f \x00"),
        ("access\u202e\u2066 right to left", r"access\u202e\u2066 right to left"),
    ],
)
def test_what_would_act_is_written_out(text: str, shown: str) -> None:
    assert inert(text) == shown
    assert inert(shown) == shown


def test_a_models_text_acts_on_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    generated.show("\x1b[31mred")
    assert terminal.getvalue() == r"\x1b[31mred"


def test_errors_and_warnings_that_quote_a_peer_do_not_act(capsys: pytest.CaptureFixture[str]) -> None:
    complain("the server says \x1b]0;owned\x07")
    set_up_logs("text", verbose=False)
    logging.getLogger("foredraft.edge").warning("%s; trying again", "busy \x1b[2J")
    said = capsys.readouterr().err
    assert r"\x1b]0;owned\x07" in said
    assert r"busy \x1b[2J" in said
