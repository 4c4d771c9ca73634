"""After a session, in words and figures: what was measured, what each scheme would have cost, what would help.

Pure functions over the session's estimates and its report. The costs are closed forms, per token
in the steady state; none of them knows jitter or queues. The first two agree with the simulator
within 15%; the others are bounds, which say what a scheme takes at best (tests hold both to that):

    cloud   T(0)
    sync    (gamma * t_d + rtt + T(gamma)) / tau(gamma), with the gamma that makes it least
    seed    at best, all drafting is hidden: (rtt + T(gamma)) / tau(gamma)
    ahead   at best, the tree holds every choice of the draft: miss * (rtt + t_d) + bound, or T(0) if that is less
    bound   drafting and link for nothing (``foredraft.observe.bound``)

What is drafted ahead is a round trip old when it arrives. After a token that is none of the draft's choices
(``miss``: how often), nothing below it can be in the cloud before the edge has heard of it, drafted and sent:
the cloud waits for that. Decoding alone meanwhile would leave behind what is on its way.

Synchronous rounds beat streaming only while ``rtt < (a - a^(gamma+1)) / (1 - a) * T - gamma * t_d``
("Speculation at a distance", arXiv 2606.25091).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from foredraft.edge.estimates import Snapshot
from foredraft.edge.path_probability import expected_tokens
from foredraft.edge.session_report import SessionReport
from foredraft.observe.bound import bound_s, knowing_bound_s
from foredraft.policies.auto import MIN_SAMPLES, choose
from foredraft.protocol.averages import WIDTHS

MOST_GAMMA = 15
LITTLE = 0.03
"""A change that would save a smaller share of the time is not worth a word."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Seconds per token of each scheme, by these estimates. ``seed_s`` and ``ahead_s`` are bounds: at best."""

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


def outlook(seen: Snapshot, most_nodes: int) -> Outlook:
    """What each scheme costs per token."""
    first = seen.ranks[:1]
    most_gamma = max(1, min(MOST_GAMMA, most_nodes))

    def chain(gamma: int) -> float:
        return expected_tokens(first, gamma, gamma)

    def seed_s(gamma: int) -> float:
        return (seen.round_trip_s + seen.pass_s(gamma)) / chain(gamma)

    def sync_s(gamma: int) -> float:
        return seed_s(gamma) + gamma * seen.draft_step_s / chain(gamma)

    gammas = range(1, most_gamma + 1)
    gamma = min(gammas, key=sync_s)
    gains_s = [(chain(one) - 1.0) * seen.pass_s(0) - one * seen.draft_step_s for one in gammas]
    miss = 1.0 - min(1.0, sum(seen.ranks))
    least_s = bound_s(seen.ranks, seen.pass_s, most_nodes)
    return Outlook(
        cloud_s=seen.pass_s(0),
        sync_s=sync_s(gamma),
        gamma=gamma,
        seed_s=min(map(seed_s, gammas)),
        ahead_s=min(seen.pass_s(0), miss * (seen.round_trip_s + seen.draft_step_s) + least_s),
        bound_s=least_s,
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
    found = outlook(seen, most_nodes)
    return [
        *_measured(seen),
        *_chosen(seen, report, most_nodes),
        *_schemes(found, report),
        *_help(seen, found, most_nodes),
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
        f"at best, seed {_ms(found.seed_s)}; ahead {_ahead(found)}",
        f"no scheduler could do better than {_ms(found.bound_s)} with this draft, nor than {_ms(found.knowing_s)} with "
        f"one that always knows: this session took {spent_s / found.bound_s:.2f} times the bound",
    ]


def _ahead(found: Outlook) -> str:
    """What shipping ahead takes at best; where that is no less than streaming, it never pays."""
    return _ms(found.ahead_s) if found.ahead_s < found.cloud_s else "no less than cloud: its drafts arrive too late"


def _help(seen: Snapshot, found: Outlook, most_nodes: int) -> list[str]:
    """What would save most: half of a time, or a draft that is right more often."""
    changes: dict[str, Callable[[Snapshot], Snapshot]] = {
        "half the round trip": lambda one: replace(one, round_trip_s=one.round_trip_s / 2),
        "a draft twice as fast": lambda one: replace(one, draft_step_s=one.draft_step_s / 2),
        "a target twice as fast": lambda one: replace(one, passes_s=tuple(known_s / 2 for known_s in one.passes_s)),
        "a draft that is right a tenth more often": _better,
    }
    saved = {name: 1.0 - outlook(change(seen), most_nodes).best_s / found.best_s for name, change in changes.items()}
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
