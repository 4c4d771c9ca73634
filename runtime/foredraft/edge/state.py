"""The edge's decisions: plain state of one session at the edge, no waiting and no I/O.

The edge holds the committed text, its own draft tree below it, and what the hints said.
Only a commit makes text; hints and drafts cost time when they are wrong, never tokens.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from foredraft.edge.estimates import Estimates
from foredraft.edge.path_probability import path_probabilities
from foredraft.edge.renamed import STATE
from foredraft.edge.session_report import Tally
from foredraft.edge.step import Step
from foredraft.errors import ConfigError, ProtocolError
from foredraft.protocol import messages
from foredraft.protocol.anchor import Anchor
from foredraft.protocol.messages import Chain, Commit, Hint, Ready, Refused, Scores
from foredraft.protocol.ports import Guess
from foredraft.protocol.sampling import StopRules
from foredraft.protocol.tree import DraftTree, Node

Scored = tuple[tuple[int, float], ...]
"""A token and its log-probability, and those of the most probable tokens at its place."""

MAX_HELD = 256
"""Commits held back because an earlier one is still missing."""


UNDRAFTED = 0.05
"""Probability of a token that a hint named and the drafter did not, once the hint is outdone by a later one."""

DEFAULT_MAX_NODES = 64
"""How far the tree grows before the cloud has said its limit."""

NO_LIMIT = 1 << 62

MAX_REFUSALS = 8
"""Chains refused since the last commit, after which nothing more is shipped before the next."""


class EdgeState:
    """One session's text and tree, as the edge sees them.

    Policies read, among others: ``end``, the position at which the text ends at the latest; ``deepest``,
    how long a chain below the root may be; ``verifying``, whether drafts of this tip are on their way
    to the cloud, or under verification there; ``ready``, what the cloud serves, while there is a link;
    ``resting``, whether the drafter has nothing to do until something happens.
    """

    def __init__(self, prompt: Sequence[int], rules: StopRules) -> None:
        """Raises ConfigError for a prompt that is none."""
        if not prompt:
            raise ConfigError("the prompt is empty; give at least one token to go on from")
        if strange := [token for token in prompt if not 0 <= token <= messages.MAX_TOKEN_ID]:
            raise ConfigError(f"token id {strange[0]} in the prompt is outside 0 to {messages.MAX_TOKEN_ID}")
        self.tree = DraftTree(prompt)
        self.start = len(self.tree.tokens)
        self.rules = rules
        self.session = 0
        self.finish = ""
        self.tally = Tally()
        self.estimates = Estimates()
        self.ready: Ready | None = None
        self._most_nodes = DEFAULT_MAX_NODES
        self.most_pass_nodes = 0  # draft nodes that the target takes in one pass, once that is known
        self.hinted: Node | None = None
        self.hinted_steps: dict[Node, tuple[Node, float]] = {}
        self._path_probabilities: list[tuple[Node, float]] | None = None
        self._likeliest: list[Node] | None = None
        self._end = self.start + rules.max_new_tokens
        self._most_chain = NO_LIMIT
        self.end = self._end
        self.deepest = self.useful_depth
        self.verifying = False
        self.resting = False
        self.constrained = False  # a grammar holds the text
        self.due_s = math.inf  # when the text is wanted at the latest, by the loop's clock
        self.now_s = 0.0  # when something last happened, by the same, where there is a deadline
        self.draftless = False  # the drafter failed: the text goes on without
        self.logprobs: list[Scored] = []  # of the tokens from ``start`` on, where they were asked for
        self._held: dict[int, Commit] = {}
        self._hinted_tokens: dict[int, tuple[list[int], float]] = {}  # by layer: tokens, and how sure of each
        self._predrafted = 0
        self._opened = False  # a first commit came over this link
        self._full = False
        self._refusals = 0

    if not TYPE_CHECKING:  # a type checker would take every name for an attribute

        def __getattr__(self, name: str) -> NoReturn:
            """Only asked for what there is not: a policy's slip of the pen, or a name of version 0.1."""
            hint = f"; it is called {STATE[name]!r} since version 0.2" if name in STATE else ""
            raise AttributeError(f"EdgeState has no attribute {name!r}{hint}", name=name, obj=self)

    def place(self, prompt: Sequence[int]) -> None:
        """Before anything was drafted or committed: the prompt is this one, its images in their places."""
        self.tree = DraftTree(prompt)
        self.start = len(self.tree.tokens)
        self._end = self.start + self.rules.max_new_tokens
        self._limit(self.ready)

    # What policies read

    @property
    def root(self) -> Node:
        """The committed tip."""
        return self.tree.root

    @property
    def position(self) -> int:
        """How many tokens are committed, prompt included."""
        return self.tree.position

    @property
    def useful_depth(self) -> int:
        """How deep a draft below the root can be of use: the target adds the last token itself."""
        return self.end - self.tree.position - 1

    @property
    def left_s(self) -> float:
        """Seconds to the deadline; inf without one."""
        return self.due_s - self.now_s

    @property
    def room(self) -> int:
        """How many more nodes the tree may take."""
        return self._most_nodes - len(self.tree.live)

    @property
    def path_probabilities(self) -> list[tuple[Node, float]]:
        """Every live node, the root first, with the probability that the walk gets there.

        The draft's own probabilities multiplied down the path, reweighed by the latest hint.
        """
        if self._path_probabilities is None:
            self._path_probabilities = path_probabilities(self.root, self.hinted_steps)
        return self._path_probabilities

    def likeliest(self) -> Sequence[Node]:
        """The likeliest chain below the root."""
        if self._likeliest is None:
            self._likeliest = self.tree.root.likeliest()
        return self._likeliest

    @property
    def waiting_on_cloud(self) -> bool:
        """Whether the cloud has anything of ours to verify."""
        return self.verifying or any(node.sent for node in self.tree.nodes())

    # What happens

    def connected(self, ready: Ready, session: int = 1) -> None:
        """A link is up, on which the text has this number: what was sent before is not known to have arrived."""
        self.session = session
        self._limit(ready)
        self._most_nodes = ready.max_nodes
        self.most_pass_nodes = ready.max_pass_nodes
        self.estimates.told_passes(ready.passes_s)
        self._opened = False
        self._held.clear()
        self._hinted_tokens.clear()
        self._full = False
        self._refusals = 0
        self._unsend()

    def disconnected(self) -> None:
        """The link is gone, and with it what the cloud had said of itself."""
        self._limit(None)

    def _limit(self, ready: Ready | None) -> None:
        """What bounds the text and a chain, as far as it is known."""
        self.ready = ready
        self.end = self._end if ready is None else min(self._end, ready.context)
        self._most_chain = NO_LIMIT if ready is None else min(ready.max_pass_nodes, ready.max_nodes)
        self.deepest = min(self.useful_depth, self._most_chain)

    def scored(self, scores: Scores) -> None:
        """How probable the tokens of the commit that follows were. Raises ProtocolError where some are missing."""
        known = scores.position - self.start
        if known < 0 or known > len(self.logprobs):
            raise ProtocolError(f"log-probabilities at {scores.position}, and none of the tokens before")
        self.logprobs[known:] = scores.tokens

    def committed(self, commit: Commit) -> list[int]:
        """Take a commit, in whatever order they come; the tokens that are new by it.

        Raises ProtocolError when it contradicts what is committed already, or cannot be true.
        """
        if commit.position > self.tree.position:
            if len(self._held) >= MAX_HELD:
                raise ProtocolError(f"{MAX_HELD} commits beyond position {self.position}, and none at it")
            self._held[commit.position] = commit
            return []
        new = self._apply(commit)
        while self._held and (held := self._held.pop(self.tree.position, None)) is not None:
            new += self._apply(held)
        return new

    def _apply(self, commit: Commit) -> list[int]:
        tokens = messages.unpack(commit.tokens)
        known = self.tree.tokens[commit.position : commit.position + len(tokens)]
        if tokens[: len(known)] != known:
            raise ProtocolError(f"a commit at {commit.position} contradicts the committed text")
        new = tokens[len(known) :]
        if new:
            self._check(new)
            if self._hinted_tokens:
                self._judge_hints(tokens)
            self._judge_guesses(new)
            forced = self._forced(commit, len(tokens))
            self.tally.forced += forced
            if forced < len(tokens):
                self._count(commit, max(1, len(new) - forced))
            self._advance(new)
        if commit.finish and commit.position + len(tokens) == self.position:
            if commit.finish == messages.STOP and not self.finish:
                self.estimates.length.take(self.position - self.start)
            self.finish = commit.finish
        return new

    def _advance(self, tokens: Sequence[int]) -> None:
        """The root moves down; what was known of the former one is void."""
        self.tree.advance(tokens)
        self.deepest = min(self.useful_depth, self._most_chain)
        self.verifying = self._any_sent()
        self._path_probabilities = self._likeliest = None
        if self._predrafted:
            self._judge_predraft()
        self.hinted = None
        self.hinted_steps.clear()
        self._full = False
        self._refusals = 0

    def _any_sent(self) -> bool:
        """Whether a child of the root is at the cloud, or on its way there."""
        children = self.tree.root.children
        return bool(children) and any(child.sent for child in children)

    def _check(self, tokens: Sequence[int]) -> None:
        """Raise ProtocolError for tokens that no honest cloud says next."""
        if self.tree.position + len(tokens) > self.end:
            raise ProtocolError(f"{len(tokens)} tokens at {self.position}, and the text ends at {self.end}")
        if self.ready is not None and max(tokens) >= self.ready.vocab_size:
            raise ProtocolError(f"token id {max(tokens)} is outside the vocabulary of {self.ready.vocab_size}")

    def _judge_guesses(self, tokens: Sequence[int]) -> None:
        """What the drafter guessed along the way that the text took, whether it was shipped or not."""
        node: Node | None = self.tree.root
        for token in tokens:
            if node is None or not node.expanded:
                return
            said: list[tuple[float, bool]] = []
            heir = None
            for child in node.children:
                right = child.token == token
                if right:
                    heir = child
                if child.guessed > 0.0:
                    said.append((child.guessed, right))
            self.estimates.saw_guesses(said)
            node = heir

    def _forced(self, commit: Commit, tokens: int) -> int:
        """How many of the commit's tokens a grammar left no choice about; where all, there was no pass."""
        if not self.constrained:
            return 0
        return max(0, tokens - commit.accepted - 1) if commit.pass_s > 0.0 else tokens

    def _count(self, commit: Commit, tokens: int) -> None:
        if self._opened:  # the first pass carries the prompt as well
            self.estimates.saw_pass(commit.drafted, commit.pass_s, commit.queue_s + commit.waited_s, tokens)
        self._opened = True
        tally = self.tally
        tally.passes += 1
        tally.drafted += commit.drafted
        tally.accepted += commit.accepted
        tally.target_s += commit.prefill_s + commit.pass_s
        tally.queue_s += commit.queue_s

    def _judge_hints(self, tokens: list[int]) -> None:
        """A hint is right when it is a prefix of what commits at its position."""
        self.tally.hints += len(self._hinted_tokens)
        for layer, (predicted, sure) in self._hinted_tokens.items():
            self.tally.hints_right += tokens[: len(predicted)] == predicted
            for said, token in zip(predicted, tokens, strict=False):
                self.estimates.saw_hint(layer, sure, said == token)
                if said != token:
                    break
        self._hinted_tokens.clear()

    def _judge_predraft(self) -> None:
        """Growth during verification was a hit when some of it is attached below the new tip."""
        if self.root.children:
            self.tally.predraft_hits += 1
        else:
            self.tally.predraft_misses += 1
        self._predrafted = 0

    def take_hint(self, hint: Hint) -> None:
        """Take a hint: where it leads is marked in the tree. What is not about this tip is stale.

        Raises ProtocolError for a hint that no honest cloud gives.
        """
        tokens = messages.unpack(hint.tokens)
        if hint.position != self.position or self.ready is None:
            return
        if hint.layer not in self.ready.exits:
            raise ProtocolError(f"a hint after layer {hint.layer}; this target has exits {list(self.ready.exits)}")
        if max(tokens, default=0) >= self.ready.vocab_size:
            raise ProtocolError(f"token id {max(tokens)} is outside the vocabulary of {self.ready.vocab_size}")
        sure = hint.confidence ** (1.0 / max(1, len(tokens)))
        self._hinted_tokens[hint.layer] = tokens, sure
        self._follow(tokens, self.estimates.hint_right(hint.layer, sure))

    def _follow(self, tokens: Sequence[int], right: float) -> None:
        """Mark where a hint leads: ``hinted`` is its end, ``hinted_steps`` each step with how probably it is right.

        It is followed as far as the tree has room.
        """
        self.hinted_steps.clear()
        self._path_probabilities = self._likeliest = None
        node = self.root
        for token in tokens:
            if self.room <= 0 and node.child(token) is None:
                break
            heir = self.tree.add(node, token, UNDRAFTED)
            self.hinted_steps[node] = (heir, right)
            node = heir
        self.hinted = node

    def drafted(self, step: Step, guesses: Sequence[Sequence[Guess]], took_s: float) -> list[Node]:
        """Take a draft step and what it took; the nodes that it added."""
        self.estimates.draft_step_s.take(took_s)
        self.tally.draft_s += took_s
        self.tally.draft_steps += 1
        return self.attach_guesses(step.nodes, guesses, step.width)

    def attach_guesses(self, parents: Sequence[Node], guesses: Sequence[Sequence[Guess]], width: int) -> list[Node]:
        """Take a draft step's guesses; those whose parent died meanwhile are dropped.

        Where the tree has no room for all of them, a parent does not count as expanded: the
        rest can be asked for again when there is. Raises ValueError for guesses that are not one list per parent.
        """
        if len(guesses) != len(parents):
            raise ValueError(f"the drafter was asked about {len(parents)} nodes and answered for {len(guesses)}")
        tree, estimates = self.tree, self.estimates
        self._path_probabilities = self._likeliest = None
        grown: list[Node] = []
        for at, parent in enumerate(parents):
            if not parent.alive:
                continue
            below, room = guesses[at], self._most_nodes - len(tree.live)
            fits = below if len(below) <= room else below[: max(0, room)]
            for guess in fits:
                guessed = guess.probability
                probability = estimates.calibrated(guessed)
                node = tree.add(parent, guess.token, probability, guessed)
                if node.guessed != guessed or node.probability != probability:  # it was there already
                    node.guessed, node.probability = guessed, probability
                grown.append(node)
            if len(fits) == len(below):
                if parent.barren or not below:
                    parent.barren = not below
                if parent.expanded < width:
                    parent.expanded = width
        if self.verifying:
            self._predrafted += len(grown)
        return grown

    def ship(self, wanted: Sequence[Node]) -> list[Chain]:
        """The chains that bring the wanted nodes to the cloud, parents first; marks them as sent.

        No more than one message holds; the rest is for the next one.
        """
        if self._full or self.ready is None:
            return []
        chains: list[Chain] = []
        end = self.end
        for leaf in wanted:
            path = [node for node in leaf.path() if not node.sent and node.position < end] if leaf.alive else []
            for first in range(0, len(path), self.ready.max_chain):
                if len(chains) == messages.MAX_CHAINS:
                    return chains
                chains.append(self._chain(path[first : first + self.ready.max_chain]))
        return chains

    def _chain(self, path: Sequence[Node]) -> Chain:
        parent = path[0].parent
        anchor = self.root.anchor if parent is None else parent.anchor
        for node in path:
            node.sent = True
        self.verifying = self.verifying or parent is self.root
        return Chain(anchor.position, anchor.hash, messages.pack([node.token for node in path]))

    def refused(self, refused: Refused) -> None:
        """The cloud could not attach a chain: what was sent must be sent again, if it still lives.

        Not before the next commit, though, if the cloud is full or keeps refusing.
        """
        if self.tree.find(Anchor(refused.position, refused.hash)) is None:
            return  # it belongs below a branch that a commit has killed meanwhile
        self._refusals += 1
        self._full = self._full or refused.code == messages.FULL or self._refusals >= MAX_REFUSALS
        self._unsend()

    def _unsend(self) -> None:
        for node in self.tree.nodes():
            node.sent = False
        self.verifying = False
