"""After a session, in words and figures: what was measured, what each scheme would have cost, what would help.

Pure functions over the session's estimates and its report. The costs are closed forms, per token
in the steady state; none of them knows jitter or queues:

    cloud   T(0)
    sync    (gamma * t_d + rtt + T(gamma)) / tau(gamma), with the gamma that makes it least
    seed    the same, with all drafting hidden behind the pass at every hit
    ahead   (T(N) + misses * (rtt + k * t_d)) / tau(N, k): a hit needs no round trip
    bound   drafting and link for nothing (``foredraft.observe.bound``)

Synchronous rounds beat streaming only while ``rtt < (a - a^(gamma+1)) / (1 - a) * T - gamma * t_d``
("Speculation at a distance", arXiv 2606.25091).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from foredraft.edge.estimates import Snapshot
from foredraft.edge.path_probability import expected_tokens
from foredraft.edge.session_report import SessionReport
from foredraft.observe.bound import bound_s, knowing_bound_s
from foredraft.policies.auto import MIN_SAMPLES, MOST_STEPS, choose
from foredraft.protocol.averages import WIDTHS

MOST_GAMMA = 15
LITTLE = 0.03
"""A change that would save a smaller share of the time is not worth a word."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Seconds per token of each scheme, by these estimates; ``misses``: share of commits that leave the tree."""

    cloud_s: float
    sync_s: float
    gamma: int
    seed_s: float
    ahead_s: float
    bound_s: float
    knowing_s: float
    break_even_s: float

    @property
    def best_s(self) -> float:
        """The least of those that exist."""
        return min(self.cloud_s, self.sync_s, self.seed_s, self.ahead_s)


def outlook(seen: Snapshot, misses: float, most_nodes: int) -> Outlook:
    """What each scheme costs per token."""
    first = seen.ranks[:1]
    most_gamma = max(1, min(MOST_GAMMA, most_nodes))

    def chain(gamma: int) -> float:
        return expected_tokens(first, gamma, gamma)

    def sync_s(gamma: int, hidden: float = 0.0) -> float:
        drafting_s = (1.0 - hidden) * gamma * seen.draft_step_s
        return (drafting_s + seen.round_trip_s + seen.pass_s(gamma)) / chain(gamma)

    def ahead_s(nodes: int, steps: int) -> float:
        wait_s = misses * (seen.round_trip_s + steps * seen.draft_step_s)
        return (seen.pass_s(nodes) + wait_s) / expected_tokens(seen.ranks, nodes, steps)

    gammas = range(1, most_gamma + 1)
    gamma = min(gammas, key=sync_s)
    gains_s = [(chain(one) - 1.0) * seen.pass_s(0) - one * seen.draft_step_s for one in gammas]
    widths = [nodes for nodes in WIDTHS[1:] if nodes <= most_nodes] or [1]
    return Outlook(
        cloud_s=seen.pass_s(0),
        sync_s=sync_s(gamma),
        gamma=gamma,
        seed_s=min(sync_s(one, 1.0 - misses) for one in gammas),
        ahead_s=min(ahead_s(nodes, steps) for nodes in widths for steps in range(1, MOST_STEPS + 1)),
        bound_s=bound_s(seen.ranks, seen.pass_s, most_nodes),
        knowing_s=knowing_bound_s(seen.pass_s, most_nodes),
        break_even_s=max(gains_s),
    )


def explain(seen: Snapshot, report: SessionReport, most_nodes: int) -> list[str]:
    """The explanation, line by line."""
    if not seen.pass_s(0):
        return ["nothing to explain: the target's passes took no time that could be measured"]
    if seen.samples < MIN_SAMPLES:
        return [
            f"nothing to explain yet: {seen.samples} round trips, draft steps and guesses were measured, and it takes "
            f"{MIN_SAMPLES}; the policy {report.policy!r} may draft too little, or the text was too short"
        ]
    tried = report.predraft_hits + report.predraft_misses
    misses = report.predraft_misses / tried if tried else 1.0
    found = outlook(seen, misses, most_nodes)
    return [
        *_measured(seen),
        *_chosen(seen, report, most_nodes),
        *_schemes(found, report),
        *_help(seen, found, misses, most_nodes),
    ]


def _measured(seen: Snapshot) -> list[str]:
    ranks = ", ".join(f"{rank:.2f}" for rank in seen.ranks)
    widths = ", ".join(
        f"{_ms(known_s)} for about {nodes + 1}" for nodes, known_s in zip(WIDTHS, seen.passes_s, strict=True) if known_s
    )
    return [
        f"measured: round trip {_ms(seen.round_trip_s)} (spread {_ms(seen.round_trip_spread_s)}), draft step "
        f"{_ms(seen.draft_step_s)}; target pass by its tokens: {widths}",
        f"the draft's 1st, 2nd, ... guess is right with probability {ranks}",
    ]


def _chosen(seen: Snapshot, report: SessionReport, most_nodes: int) -> list[str]:
    choice = choose(seen, most_nodes, 0.0)
    if not choice.useful:
        what = "streams from the cloud, and drafts now and then to see whether that has changed"
    elif choice.steps:
        what = (
            f"verifies up to {choice.nodes} drafted tokens in a pass; when none is there, the cloud waits up to "
            f"{_ms(choice.patience_s)}, for {choice.steps} draft steps"
        )
    else:
        what = f"streams from the cloud, and verifies up to {choice.nodes} drafted tokens where they come in time"
    spent_s = report.e2e_s / max(1, report.new_tokens)
    return [
        f"chosen: with these figures, auto {what}",
        f"this session ({report.policy}): {report.tokens_per_pass:.2f} tokens per pass, {_ms(spent_s)} per token",
    ]


def _schemes(found: Outlook, report: SessionReport) -> list[str]:
    spent_s = report.e2e_s / max(1, report.new_tokens)
    if found.break_even_s > 0.0:
        even = f"synchronous drafting beats streaming up to a round trip of {_ms(found.break_even_s)}"
    else:
        even = "synchronous drafting does not beat streaming at any round trip"
    return [
        f"break-even: {even}",
        f"per token, by closed forms: cloud {_ms(found.cloud_s)}; sync {_ms(found.sync_s)} (gamma {found.gamma}); "
        f"seed {_ms(found.seed_s)}; ahead {_ms(found.ahead_s)}",
        f"no scheduler could do better than {_ms(found.bound_s)} with this draft, nor than {_ms(found.knowing_s)} with "
        f"one that always knows: this session took {spent_s / found.bound_s:.2f} times the bound",
    ]


def _help(seen: Snapshot, found: Outlook, misses: float, most_nodes: int) -> list[str]:
    """What would save most: half of a time, or a draft that is right more often."""
    changes: dict[str, Callable[[Snapshot], Snapshot]] = {
        "half the round trip": lambda one: replace(one, round_trip_s=one.round_trip_s / 2),
        "a draft twice as fast": lambda one: replace(one, draft_step_s=one.draft_step_s / 2),
        "a target twice as fast": lambda one: replace(one, passes_s=tuple(known_s / 2 for known_s in one.passes_s)),
        "a draft that is right a tenth more often": _better,
    }
    saved = {
        name: 1.0 - outlook(change(seen), misses, most_nodes).best_s / found.best_s for name, change in changes.items()
    }
    ordered = sorted(saved, key=lambda name: -saved[name])
    told = ", ".join(f"{name} ({saved[name]:.0%})" for name in ordered if saved[name] >= LITTLE)
    return [f"what would save most, by the same forms: {told or 'nothing of a kind; the target decides alone'}"]


def _better(seen: Snapshot) -> Snapshot:
    """The first guess right a tenth more often, where there is room."""
    first, *rest = seen.ranks
    better = min(1.0, first + 0.1)
    left = (1.0 - better) / (1.0 - first) if first < 1.0 else 1.0
    return replace(seen, ranks=(better, *(rank * left for rank in rest)))


def _ms(seconds: float) -> str:
    return f"{round(seconds * 1e3, 3):.3g} ms"
