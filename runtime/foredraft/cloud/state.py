"""The cloud's decisions: plain state of one session in the cloud, no waiting and no I/O.

The cloud owns the committed text. It takes chains into its tree, decides what the next
target pass covers, and turns the target's verdict into a commit.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from foredraft.cloud.ledger import Ledger
from foredraft.errors import ConfigError, ProtocolError, RefusedError
from foredraft.protocol import messages
from foredraft.protocol.messages import Chain, Commit, Open, Refused, Steer
from foredraft.protocol.ports import Grammar, TargetCard, Verdict
from foredraft.protocol.sampling import Sampling, StopRules
from foredraft.protocol.tree import DraftTree, Node
from foredraft.protocol.walk import TIP, accept

MAX_PATIENCE_S = 60.0
TICK_S = 1e-6
"""A clock may stop this much short of a moment that was waited for."""

StopSearch = Callable[[int], bool]
"""Told each new token in turn; True when it completes a stop string."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one session may ask of the cloud.

    ``max_nodes``: live draft nodes held for it. ``max_chain``: tokens in one chain.
    ``cloud_drafts``: how deep a drafter in the cloud may fill its tree; 0 where there is none.
    ``idle_s``: after so long without anything to do, its place is given to others.
    """

    max_nodes: int = 256
    max_chain: int = 64
    cloud_drafts: int = 0
    idle_s: float = 600.0


class Timing(msgspec.Struct, frozen=True, gc=False):
    """What a commit tells of the time around its pass; the fields are those of ``messages.Commit``."""

    prefill_s: float = 0.0
    waited_s: float = 0.0
    heard: int = 0
    heard_s: float = 0.0
    draft_us: tuple[int, ...] = ()


class Go(msgspec.Struct, frozen=True, gc=False):
    """Run a pass over these draft tokens now, as in ``ports.Pass``; with none, decode one token alone."""

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()


class Extend(msgspec.Struct, frozen=True):
    """Let the drafter in the cloud guess what comes below this node."""

    node: Node


class Wait(msgspec.Struct, frozen=True, gc=False):
    """Nothing to verify; look again when something arrives, or at ``until_s`` of the loop's clock.

    ``idle``: nothing can happen before the edge says something, and at ``until_s`` its place is lost.
    """

    until_s: float
    idle: bool = False


Plan = Go | Extend | Wait


def sampling_of(opened: Open) -> Sampling:
    """The sampling that Open asks for. Raises RefusedError("invalid")."""
    try:
        return Sampling(opened.temperature, opened.top_k, opened.top_p, opened.seed)
    except ConfigError as error:
        raise RefusedError(messages.INVALID, str(error)) from error


def stop_rules_of(opened: Open) -> StopRules:
    """The stop rules that Open asks for. Raises RefusedError("invalid")."""
    try:
        return StopRules(opened.max_new_tokens, opened.stop_tokens, opened.stop_strings)
    except ConfigError as error:
        raise RefusedError(messages.INVALID, str(error)) from error


def _due_s(steer: Steer, now_s: float) -> float:
    """Until when commits are of use, by the cloud's own clock."""
    return now_s + steer.left_ms / 1e3 if steer.left_ms else math.inf


class CloudState:
    """One session's text, tree and orders, as the cloud sees them."""

    def __init__(self, opened: Open, card: TargetCard, limits: Limits, now_s: float) -> None:
        """Raises RefusedError for an Open that makes no sense."""
        self.session = opened.session
        self.sampling = sampling_of(opened)
        self.rules = stop_rules_of(opened)
        self._card = card
        self._limits = limits
        self.tree = DraftTree(self._text(opened))
        self.start = opened.start
        self.end = min(opened.start + self.rules.max_new_tokens, card.context)
        self.steer = opened.steer
        self._check_steer(opened.steer)
        self.due_s = _due_s(opened.steer, now_s)
        self._least_pass_s = card.pass_s or math.inf  # so far
        self.idle_since_s = now_s
        self._ledger = Ledger(card.passes_s)
        self.finish = ""
        if self.tree.position >= self.end:
            self.finish = self._finish_at_end()
        elif self.tree.position > self.start and self.tree.tokens[-1] in self.rules.tokens:
            self.finish = messages.STOP

    def _text(self, opened: Open) -> list[int]:
        try:
            tokens = messages.unpack(opened.tokens)
        except ProtocolError as error:
            raise RefusedError(messages.INVALID, str(error)) from error
        if not 0 < opened.start <= len(tokens):
            reason = f"generation starts at {opened.start} in a text of {len(tokens)} tokens"
            raise RefusedError(messages.INVALID, reason)
        if opened.start >= self._card.context or len(tokens) > self._card.context:
            reason = (
                f"a prompt of {opened.start} tokens (and {len(tokens) - opened.start} generated) leaves no room "
                f"in the context of {self._card.context}; shorten the prompt"
            )
            raise RefusedError(messages.TOO_LONG, reason)
        self._check_ids(tokens)
        return tokens

    def _check_ids(self, tokens: Sequence[int]) -> None:
        if tokens and max(tokens) >= self._card.vocab_size:
            reason = f"token id {max(tokens)} is outside the vocabulary of {self._card.vocab_size}"
            raise RefusedError(messages.INVALID, reason)

    def _check_steer(self, steer: Steer) -> None:
        if not (math.isfinite(steer.patience_s) and 0.0 <= steer.patience_s <= MAX_PATIENCE_S):
            reason = f"patience_s must be between 0 and {MAX_PATIENCE_S:g}, not {steer.patience_s!r}"
            raise RefusedError(messages.INVALID, reason)
        unknown = sorted(set(steer.exits) - set(self._card.exits))
        if unknown:
            reason = f"no exit after layer {unknown[0]}; this target has {list(self._card.exits)}"
            raise RefusedError(messages.INVALID, reason)
        if steer.cloud_drafts and not self._limits.cloud_drafts:
            reason = "this server has no draft model of its own (serve --draft); choose a policy without one"
            raise RefusedError(messages.INVALID, reason)

    def take_steer(self, steer: Steer, now_s: float) -> None:
        """Follow new orders, unless newer ones came before. Raises RefusedError("invalid")."""
        self._check_steer(steer)
        if steer.serial > self.steer.serial:
            self.steer = steer
            self.due_s = _due_s(steer, now_s)

    @property
    def last_start_s(self) -> float:
        """When a pass must have begun to be of use before the deadline, the shortest one so far; inf without one."""
        return self.due_s - (0.0 if self._least_pass_s == math.inf else self._least_pass_s)

    def take_chain(self, chain: Chain) -> Refused | None:
        """Attach a chain to the tree as far as there is room, or say why not.

        Silent only where a commit that was sent already tells the edge what became of the chain.
        Raises RefusedError or ProtocolError for tokens that no honest edge sends.
        """
        tokens = messages.unpack(chain.tokens)
        self._check_ids(tokens)
        if len(tokens) > self._limits.max_chain:
            reason = f"a chain of {len(tokens)} tokens; at most {self._limits.max_chain}"
            raise RefusedError(messages.INVALID, reason)
        place = self.tree.trim(chain.anchor, tokens)
        if place is None:
            if chain.position <= self.tree.position:
                return None
            return self._refuse(chain, messages.UNKNOWN_ANCHOR, f"nothing known at position {chain.position}")
        node, rest = place
        tree, most = self.tree, self._limits.max_nodes
        for token in rest:
            if len(tree.live) >= most and node.child(token) is None:
                return self._refuse(chain, messages.FULL, f"holding {len(tree)} nodes already")
            node = tree.add(node, token)
        return None

    def _refuse(self, chain: Chain, code: str, reason: str) -> Refused:
        return Refused(self.session, code, reason, 0.0, chain.position, chain.hash)

    def plan(self, now_s: float) -> Plan:
        """What to do next.

        Verify as soon as enough is attached below the tip; when patience is over, verify what there
        is, or decode alone where that is allowed; else wait. A cloud that may decode alone
        waits only as far as its ledger allows, and verifies nothing while that is overdrawn
        or knows nothing to compare with. With a drafter in the cloud it waits for nobody: that fills
        the tree as deep as the orders say, and what is there is verified, or one token decoded alone.
        """
        if self.steer.cloud_drafts:
            node = self._to_extend()
            return self._choose() if node is None else Extend(node)
        live = len(self.tree.live)
        alone = self.steer.alone_until > self.tree.position
        if alone and (self._ledger.empty or self._ledger.balance_s < 0.0):
            return Go()
        if live >= self.steer.min_nodes and live:
            return self._choose()
        if not (live or alone):
            return Wait(self.idle_since_s + self._limits.idle_s, idle=True)
        patience_s = self.steer.patience_s
        if alone and patience_s > self._ledger.balance_s:
            patience_s = 0.0
        patience_ends_s = self.idle_since_s + patience_s
        if now_s < patience_ends_s - TICK_S:
            return Wait(patience_ends_s)
        return self._choose()

    def _to_extend(self) -> Node | None:
        """The node below which a drafter in the cloud goes on: the deepest, while that is not deep enough."""
        depth = min(self.steer.cloud_drafts, self._limits.cloud_drafts, self.end - 1 - self.tree.position)
        if depth <= 0 or len(self.tree) >= self._limits.max_nodes:
            return None
        deepest = max(self.tree.nodes(), key=lambda node: node.position, default=self.tree.root)
        return None if deepest.barren or deepest.position - self.tree.position >= depth else deepest

    def _choose(self) -> Go:
        """The nodes for one pass: in the order of arrival, within the bounds on nodes and branches."""
        steer, deepest = self.steer, self.end - 1
        most = min(self._card.max_pass_nodes, steer.max_nodes or self._card.max_pass_nodes)
        branches = max(1, steer.max_branches)
        tokens: list[int] = []
        parents: list[int] = []
        places: dict[Node | None, int] = {self.tree.root: TIP}
        leaf: list[bool] = []  # of each chosen node: whether none of them is attached below it
        leaves = 0
        for node in self.tree.live:
            place = len(tokens)
            if place >= most:
                break
            above = places.get(node.parent)
            if above is None or node.position > deepest:
                continue
            if above != TIP and leaf[above]:
                leaf[above] = False
            elif leaves < branches:
                leaves += 1
            else:
                continue
            leaf.append(True)
            places[node] = place
            tokens.append(node.token)
            parents.append(above)
        return Go(tuple(tokens), tuple(parents))

    def commit(
        self,
        plan: Go,
        verdict: Verdict,
        timing: Timing,
        now_s: float,
        stops: StopSearch | None = None,
        grammar: Grammar | None = None,
    ) -> tuple[Commit, list[int]]:
        """Turn the verdict on a plan into a commit: the message, and which nodes (indices) the cache keeps.

        What the ``grammar`` forces after it is committed with it. Raises GrammarError where it forbids the verdict.
        """
        tokens = plan.tokens
        path, bonus = accept(tokens, plan.parents, verdict.prediction.tokens)
        position = self.tree.position
        verified = [tokens[index] for index in path] + [bonus]
        said = self._said(verified, grammar, stops)
        self.tree.advance(said)
        self.idle_since_s = now_s
        self._least_pass_s = min(self._least_pass_s, verdict.pass_s)
        self._ledger.book(len(tokens), min(len(verified), len(said)), verdict.pass_s, timing.waited_s)
        accepted = min(len(path), len(said))
        commit = Commit(
            session=self.session,
            position=position,
            tokens=messages.pack(said),
            drafted=len(tokens),
            accepted=accepted,
            queue_s=verdict.queue_s,
            prefill_s=timing.prefill_s,
            pass_s=verdict.pass_s,
            finish=self.finish,
            waited_s=timing.waited_s,
            heard=timing.heard,
            heard_s=timing.heard_s,
            draft_us=timing.draft_us,
        )
        return commit, path[:accepted]

    def begin(self, grammar: Grammar, heard_s: float, stops: StopSearch | None) -> Commit | None:
        """Commit what the grammar forces before any pass; None where that is nothing. ``heard_s``: since Open.

        Raises GrammarError where it forbids the text so far.
        """
        position = self.tree.position
        grammar.follow(self.tree.tokens[self.start :])
        said = self._said([], grammar, stops)
        if not said:
            return None
        self.tree.advance(said)
        return Commit(self.session, position, messages.pack(said), 0, 0, 0, 0, 0, self.finish, heard_s=heard_s)

    def _said(self, verified: list[int], grammar: Grammar | None, stops: StopSearch | None) -> list[int]:
        """What is of the text of ``verified`` tokens and those that must follow; sets ``finish`` where it ends here."""
        if grammar is None:
            return self._cut(verified, stops)
        forced = grammar.follow(verified, self.end - self.tree.position - len(verified))
        said = self._cut(verified + forced, stops)
        if grammar.complete and not self.finish:
            self.finish = messages.STOP
        return said

    def _cut(self, tokens: list[int], stops: StopSearch | None) -> list[int]:
        """What of ``tokens`` still belongs to the text; sets ``finish`` where it ends here."""
        stop_tokens, left = self.rules.tokens, self.end - self.tree.position
        for count, token in enumerate(tokens, 1):
            if token in stop_tokens or (stops is not None and stops(token)):
                self.finish = messages.STOP
                return tokens[:count]
            if count >= left:
                self.finish = self._finish_at_end()
                return tokens[:count]
        return tokens

    def _finish_at_end(self) -> str:
        return messages.LENGTH if self.end == self.start + self.rules.max_new_tokens else messages.CONTEXT
