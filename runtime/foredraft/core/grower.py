"""The grower's decisions: plain state of one session at the edge, no waiting and no I/O.

The grower holds the committed text, its own draft tree below it, and what the hints said.
Only a commit makes text; hints and drafts cost time when they are wrong, never tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from foredraft.core import messages
from foredraft.core.messages import Commit, Grow, Hint, Ready, Refused
from foredraft.core.ports import Guess
from foredraft.core.reach import reaches
from foredraft.core.sampling import StopRules
from foredraft.core.tree import DraftTree, Node
from foredraft.errors import ProtocolError

MAX_HELD = 256
"""Commits held back because an earlier one is still missing."""


@dataclass(slots=True)
class Tally:
    """What a session counted. Seconds are the loop's; ``target_s`` is what the cloud reports."""

    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    hints: int = 0
    hints_right: int = 0
    predraft_hits: int = 0
    predraft_misses: int = 0
    target_s: float = 0.0
    queue_s: float = 0.0
    draft_s: float = 0.0
    draft_steps: int = 0
    reconnects: int = 0


UNDRAFTED = 0.05
"""Probability of a token that a hint named and the drafter did not, once the hint is outdone by a later one."""

DEFAULT_MAX_NODES = 64
"""How far the tree grows before the cloud has said its limit."""


class Grower:
    """One session's text and tree, as the edge sees them."""

    def __init__(self, prompt: Sequence[int], rules: StopRules) -> None:
        self.tree = DraftTree(prompt)
        self.start = len(self.tree.tokens)
        self.rules = rules
        self.session = 0
        self.finish = ""
        self.tally = Tally()
        self.ready: Ready | None = None
        self.hinted: Node | None = None
        self.told: dict[Node, tuple[Node, float]] = {}
        self._reaches: list[tuple[Node, float]] | None = None
        self._end = self.start + rules.max_new_tokens
        self._held: dict[int, Commit] = {}
        self._foreseen: dict[int, list[list[int]]] = {}
        self._predrafted = 0
        self._full = False

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
    def end(self) -> int:
        """The position at which the text ends at the latest."""
        return self._end if self.ready is None else min(self._end, self.ready.context)

    @property
    def useful_depth(self) -> int:
        """How deep a draft below the root can be of use: the target adds the last token itself."""
        return self.end - self.position - 1

    @property
    def room(self) -> int:
        """How many more nodes the tree may take."""
        return (DEFAULT_MAX_NODES if self.ready is None else self.ready.max_nodes) - len(self.tree)

    @property
    def reaches(self) -> list[tuple[Node, float]]:
        """Every live node, the root first, with the probability that the walk gets there.

        The draft's own probabilities multiplied down the path, reweighed by the latest hint.
        """
        if self._reaches is None:
            self._reaches = reaches(self.root, self.told)
        return self._reaches

    @property
    def waiting_on_cloud(self) -> bool:
        """Whether the cloud has anything of ours to verify."""
        return any(node.sent for node in self.tree.nodes())

    @property
    def verifying(self) -> bool:
        """Whether drafts of this tip are on their way to the cloud, or under verification there."""
        return any(node.sent for node in self.root.children.values())

    # What happens

    def connected(self, ready: Ready) -> None:
        """A link is up: whatever was sent over the one before is not known to have arrived."""
        self.session += 1
        self.ready = ready
        self._held.clear()
        self._unsend()

    def committed(self, commit: Commit) -> list[int]:
        """Take a commit, in whatever order they come; the tokens that are new by it.

        Raises ProtocolError when it contradicts what is committed already.
        """
        if commit.position > self.position:
            if len(self._held) >= MAX_HELD:
                raise ProtocolError(f"{MAX_HELD} commits beyond position {self.position}, and none at it")
            self._held[commit.position] = commit
            return []
        new = self._apply(commit)
        while (held := self._held.pop(self.position, None)) is not None:
            new += self._apply(held)
        return new

    def _apply(self, commit: Commit) -> list[int]:
        tokens = messages.unpack(commit.tokens)
        known = self.tree.tokens[commit.position : commit.position + len(tokens)]
        if tokens[: len(known)] != known:
            raise ProtocolError(f"a commit at {commit.position} contradicts the committed text")
        new = tokens[len(known) :]
        if new:
            self._judge_hints(commit.position, tokens)
            self._count(commit)
            self.tree.advance(new)
            self._reaches = None
            self._judge_predraft()
            self.hinted = None
            self.told.clear()
            self._full = False
        if commit.finish and commit.position + len(tokens) == self.position:
            self.finish = commit.finish
        return new

    def _count(self, commit: Commit) -> None:
        tally = self.tally
        tally.passes += 1
        tally.drafted += commit.drafted
        tally.accepted += commit.accepted
        tally.target_s += commit.prefill_s + commit.pass_s
        tally.queue_s += commit.queue_s

    def _judge_hints(self, position: int, tokens: list[int]) -> None:
        """A hint is right when it is a prefix of what commits at its position."""
        for foreseen in self._foreseen.pop(position, []):
            self.tally.hints_right += tokens[: len(foreseen)] == foreseen

    def _judge_predraft(self) -> None:
        """Growth during verification was a hit when some of it hangs below the new tip."""
        if self._predrafted:
            if self.root.children:
                self.tally.predraft_hits += 1
            else:
                self.tally.predraft_misses += 1
        self._predrafted = 0

    def foresaw(self, hint: Hint) -> None:
        """Take a hint: where it leads is marked in the tree. A late one only counts."""
        tokens = messages.unpack(hint.tokens)
        self.tally.hints += 1
        if hint.position < self.position:
            said = self.tree.tokens[hint.position : hint.position + len(tokens)]
            self.tally.hints_right += said == tokens
            return
        self._foreseen.setdefault(hint.position, []).append(tokens)
        if hint.position == self.position:
            self._follow(tokens, hint.confidence)

    def _follow(self, tokens: Sequence[int], confidence: float) -> None:
        """Mark where a hint leads: ``hinted`` is its end, ``told`` each step with its own confidence."""
        self.told.clear()
        self._reaches = None
        node = self.root
        for token in tokens:
            heir = self.tree.add(node, token, UNDRAFTED)
            self.told[node] = (heir, confidence ** (1.0 / len(tokens)))
            node = heir
        self.hinted = node

    def grew(self, parents: Sequence[Node], guesses: Sequence[Sequence[Guess]]) -> list[Node]:
        """Take a draft step's guesses; those whose parent died meanwhile are dropped."""
        self._reaches = None
        verifying = self.verifying
        grown: list[Node] = []
        for parent, below in zip(parents, guesses, strict=True):
            parent.barren = not below
            parent.expanded = True
            if parent.alive:
                grown += [self.tree.add(parent, guess.token, guess.probability) for guess in below]
        if verifying:
            self._predrafted += len(grown)
        return grown

    def ship(self, wanted: Sequence[Node]) -> list[Grow]:
        """The messages that bring the wanted nodes to the cloud, parents first; marks them as sent."""
        if self._full or self.ready is None:
            return []
        grows: list[Grow] = []
        for leaf in wanted:
            chain = [node for node in leaf.path() if not node.sent] if leaf.alive else []
            chain = [node for node in chain if node.anchor.position < self.end]
            for first in range(0, len(chain), self.ready.max_chain):
                grows.append(self._grow(chain[first : first + self.ready.max_chain]))
        return grows

    def _grow(self, chain: Sequence[Node]) -> Grow:
        parent = chain[0].parent
        anchor = self.root.anchor if parent is None else parent.anchor
        for node in chain:
            node.sent = True
        return Grow(self.session, anchor.position, anchor.hash, messages.pack([node.token for node in chain]))

    def refused(self, refused: Refused) -> None:
        """The cloud could not hang a chain: what was sent must be sent again, if it still lives."""
        self._unsend()
        self._full = refused.code == messages.FULL

    def _unsend(self) -> None:
        for node in self.tree.nodes():
            node.sent = False
        self._full = False
