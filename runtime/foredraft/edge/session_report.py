"""What one session counts, and the report of it in the fields that ``foredraft generate --json`` prints."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from foredraft.protocol.sampling import NOISE, Sampling

# Who named the policy that ran.
EDGE: Final = "edge"
SERVER: Final = "server"
NOBODY: Final = "default"


@dataclass(slots=True)
class Tally:
    """What a session counts. Moments are of the loop's clock; ``target_s`` is what the cloud reports."""

    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    forced: int = 0
    hints: int = 0
    hints_right: int = 0
    predraft_hits: int = 0
    predraft_misses: int = 0
    target_s: float = 0.0
    queue_s: float = 0.0
    draft_s: float = 0.0
    draft_steps: int = 0
    reconnects: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    opening_bytes_up: int = 0
    began_at_s: float = 0.0
    first_at_s: float = 0.0
    last_at_s: float = 0.0
    first_tokens: int = 0

    def came(self, tokens: int, now_s: float) -> None:
        """So many tokens were committed."""
        if not self.first_tokens:
            self.first_at_s, self.first_tokens = now_s, tokens
        self.last_at_s = now_s


@dataclass(frozen=True, slots=True)
class SessionReport:
    """One finished session.

    ``ttft_s``: from the call to the first token. ``tpot_s``: time per output token after the
    first commit's. ``target_s``: the cloud's own prefill and pass seconds; ``draft_s``: the
    edge's draft steps. ``hints_right``: hints that were a prefix of what committed.
    ``predraft_hits``/``predraft_misses``: commits after growth during verification, by
    whether some of that growth is below the new tip. ``bytes_up``/``bytes_down``: payload and
    WebSocket framing, all connections; ``opening_bytes_up`` of it were handshakes and prompts.
    ``policy_from``: who named the policy: EDGE, SERVER or NOBODY. ``exact``: whether every server that it was on
    promises texts to the bit. ``translated``: whether the draft has another tokenizer, and is translated by text.
    ``forced``: tokens that a grammar left no choice about, and that took no pass. ``image_bytes``: what was sent of
    images; ``image_s``: from their first byte until the cloud had seen them, which is part of ``ttft_s``.
    ``unverified``: what ``text`` has after ``tokens`` where a deadline was missed: the draft's own, or a grammar's
    ending; not the target's.
    """

    text: str
    tokens: list[int]
    policy: str
    seed: int
    temperature: float
    prompt_tokens: int
    new_tokens: int
    ttft_s: float
    tpot_s: float
    e2e_s: float
    passes: int
    drafted: int
    accepted: int
    tokens_per_pass: float
    hints: int
    hints_right: int
    predraft_hits: int
    predraft_misses: int
    bytes_up: int
    bytes_down: int
    opening_bytes_up: int
    target_s: float
    queue_s: float
    draft_s: float
    reconnects: int
    finish_reason: str
    policy_from: str = EDGE
    exact: bool = False
    translated: bool = False
    forced: int = 0
    image_bytes: int = 0
    image_s: float = 0.0
    unverified: list[int] = field(default_factory=list)
    acceptance: str = NOISE


BY_REJECTION: Final = "by rejection sampling: as probable as the target makes it, and dependent on the draft"
"""What a text is without shared noise, for people."""


def exactness(exact: bool) -> str:
    """What a target promises of its texts, for people."""
    return "exact to the bit" if exact else "exact up to ties of the target's two best tokens"


def report_of(
    tally: Tally,
    *,
    tokens: Sequence[int],
    prompt_tokens: int,
    policy: str,
    sampling: Sampling,
    finish: str,
    text: str,
    exact: bool,
    image_bytes: int = 0,
    image_s: float = 0.0,
    acceptance: str = NOISE,
) -> SessionReport:
    """The report of a session that has ended; its times are 0 where nothing came."""
    later = len(tokens) - tally.first_tokens
    began_s = tally.began_at_s if tally.first_tokens else 0.0
    return SessionReport(
        text=text,
        tokens=list(tokens),
        policy=policy,
        seed=sampling.seed,
        temperature=sampling.temperature,
        prompt_tokens=prompt_tokens,
        new_tokens=len(tokens),
        ttft_s=tally.first_at_s - began_s,
        tpot_s=(tally.last_at_s - tally.first_at_s) / later if later else 0.0,
        e2e_s=tally.last_at_s - began_s,
        passes=tally.passes,
        drafted=tally.drafted,
        accepted=tally.accepted,
        tokens_per_pass=len(tokens) / tally.passes if tally.passes else 0.0,
        hints=tally.hints,
        hints_right=tally.hints_right,
        predraft_hits=tally.predraft_hits,
        predraft_misses=tally.predraft_misses,
        bytes_up=tally.bytes_up,
        bytes_down=tally.bytes_down,
        opening_bytes_up=tally.opening_bytes_up,
        target_s=tally.target_s,
        queue_s=tally.queue_s,
        draft_s=tally.draft_s,
        reconnects=tally.reconnects,
        finish_reason=finish,
        exact=exact,
        forced=tally.forced,
        image_bytes=image_bytes,
        image_s=image_s,
        acceptance=acceptance,
    )
