"""What operators are told: a line for each session that ends and each refusal; never a prompt, a token or a key."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from foredraft.cloud.state import CloudState
from foredraft.protocol.events import LOG_OF_SESSIONS, Value

log = logging.getLogger(LOG_OF_SESSIONS)

# How a session ended that did not come to the end of its text.
LEFT: Final = "left"
"""The edge closed it, began another, or its link is lost: it may come back."""
REFUSED: Final = "refused"
FAILED: Final = "failed"


@dataclass(slots=True)
class Tally:
    """What one session took, in its seconds of the target and of waiting for it.

    ``constraint``: the kind of what its text is held to, and ``forced`` how many tokens that left no choice about.
    ``images``: how many are in the text.
    """

    constraint: str = ""
    images: int = 0
    forced: int = 0
    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    hints: int = 0
    pass_s: float = 0.0
    prefill_s: float = 0.0
    queue_s: float = 0.0

    def passed(self, drafted: int, accepted: int, hints: int, pass_s: float, queue_s: float) -> None:
        """One more pass."""
        self.passes += 1
        self.drafted += drafted
        self.accepted += accepted
        self.hints += hints
        self.pass_s += pass_s
        self.queue_s += queue_s


def fields_of(name: str, key: str, state: CloudState, tally: Tally, how: str, took_s: float) -> dict[str, Value]:
    """What is told of a session that is over. ``key``: whose. ``how``: the reason for which its text ended, or one of
    those above."""
    return {
        "session": name,
        "key": key,
        "ended": how,
        "prompt_tokens": state.start,
        "new_tokens": state.tree.position - state.start,
        "passes": tally.passes,
        "drafted": tally.drafted,
        "accepted": tally.accepted,
        "hints": tally.hints,
        "images": tally.images,
        "constraint": tally.constraint,
        "forced": tally.forced,
        "took_s": round(took_s, 6),
        "pass_s": round(tally.pass_s, 6),
        "prefill_s": round(tally.prefill_s, 6),
        "queue_s": round(tally.queue_s, 6),
    }


def session_ended(name: str, key: str, state: CloudState, tally: Tally, how: str, took_s: float) -> None:
    """One session is over, as in ``fields_of``."""
    fields = fields_of(name, key, state, tally, how, took_s)
    _say(
        f"session {name} ended ({how}): {fields['new_tokens']} tokens after {state.start}, {tally.passes} passes, "
        f"{tally.accepted} of {tally.drafted} drafted tokens accepted, {took_s:.2f} s",
        {"event": "session", **fields},
    )


def refused(connection: int, session: int, code: str, key: str) -> None:
    """Something was refused. Its reason may quote what was sent, so only the code is told."""
    _say(
        f"refused {connection}.{session}: {code}",
        {"event": "refusal", "session": f"{connection}.{session}", "key": key, "code": code},
    )


def _say(line: str, fields: Mapping[str, Value]) -> None:
    log.info("%s", line, extra={"fields": fields})
