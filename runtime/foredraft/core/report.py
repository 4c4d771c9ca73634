"""What one session did, in the fields that ``foredraft generate --json`` prints."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionReport:
    """One finished session.

    ``ttft_s``: from the call to the first token. ``tpot_s``: time per output token after the
    first commit's. ``target_s``: the cloud's own prefill and pass seconds; ``draft_s``: the
    edge's draft steps. ``hints_right``: hints that were a prefix of what committed.
    ``predraft_hits``/``predraft_misses``: commits after growth during verification, by
    whether some of that growth hung below the new tip. ``bytes_up``/``bytes_down``: payload and
    WebSocket framing, all connections; ``opening_bytes_up`` of it were handshakes and prompts.
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
