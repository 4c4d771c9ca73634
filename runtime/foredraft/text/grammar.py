"""Which tokens a constraint allows: at the end of a text, and below each node of a draft tree.

The library llguidance knows which tokens may come next (Microsoft, "Low-Level Guidance", 2025): its masks have a bit
for each token. Where bytes are forced it allows the one token that its tokenizer would write there, so a mask of one
bit names a token that costs nobody a pass.
"""

import json
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from foredraft.errors import GrammarError, needs
from foredraft.text.constraint import JSON_SCHEMA, REGEX, Constraint
from foredraft.text.shortest import PlainTokens, shortest_ending

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

EXTRA: Final = "grammar"
_TIP: Final = -1
_KNOWN: Final = 32  # grammars that are kept ready
_ONE_LINE: Final[Any] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON as ``json.dumps`` writes it; a schema's own ``x-guidance`` may say otherwise. Models write spaces for ever."""


class Grammars:
    """Grammars over the tokens of one tokenizer; ``vocab_size``: the model's, which may be larger.

    Raises MissingExtraError where the library is not installed.
    """

    def __init__(self, tokenizer_json: bytes, vocab_size: int, stop_tokens: Sequence[int]) -> None:
        needs("llguidance", extra=EXTRA)
        self._json, self._vocab_size, self._stops = tokenizer_json, vocab_size, tuple(stop_tokens)
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._plain: PlainTokens | None = None
        self._begun: dict[tuple[str, Constraint], LLMatcher] = {}

    def ready(self) -> None:
        """Make now what takes a moment: 0.3 s for 49k tokens, all the threads of the process. Raises GrammarError."""
        with self._lock:
            self._tokens()

    def begin(self, constraint: Constraint, owner: str = "") -> "Grammar":
        """The grammar before any token. Raises GrammarError for one that is wrong, too large, or that nothing meets.

        ``owner``: whose it is; one that is known to somebody else is made again, so that its time tells nothing.
        From any thread, and several at once. A large one takes a moment, and so does the first (``ready``).
        """
        with self._lock:
            matcher = self._begun.get((owner, constraint))
            if matcher is None:
                if len(self._begun) >= _KNOWN:
                    del self._begun[next(iter(self._begun))]
                matcher = self._begun[owner, constraint] = self._compiled(constraint)
            return Grammar(matcher.deep_copy(), self._vocab_size, self._stops, self._plain_tokens)

    def _tokens(self) -> "LLTokenizer":
        from llguidance import LLTokenizer

        if self._tokenizer is None:
            try:
                ends = list(self._stops) or None
                self._tokenizer = LLTokenizer(self._json.decode(), self._vocab_size, ends)
            except Exception as error:  # the library raises whatever comes
                raise GrammarError(f"no grammar can be made over this model's tokenizer: {error}") from error
        return self._tokenizer

    def _plain_tokens(self) -> PlainTokens:
        if self._plain is None:
            self._plain = PlainTokens(self._tokens())
        return self._plain

    def _compiled(self, constraint: Constraint) -> "LLMatcher":
        from llguidance import LLMatcher, LLParserLimits

        limits = LLParserLimits(max_grammar_size=50_000, max_lexer_states=50_000, verbose_errors=False)
        matcher = LLMatcher(self._tokens(), _written(constraint), log_level=0, limits=limits)
        if matcher.is_error():
            raise _wrong(constraint, matcher.get_error())
        if not any(matcher.compute_bitmask()):
            raise _wrong(constraint, "nothing meets it")
        return matcher


def _written(constraint: Constraint) -> str:
    """The constraint as the library wants it."""
    from llguidance import LLMatcher, grammar_from

    if constraint.kind == JSON_SCHEMA:
        try:
            schema = json.loads(constraint.rule)
        except (ValueError, RecursionError) as error:
            raise _wrong(constraint, f"no JSON: {error}") from error
        if not isinstance(schema, dict):
            raise _wrong(constraint, f"a schema is an object, not {constraint.rule[:40]!r}")
    try:
        if constraint.kind == JSON_SCHEMA:
            return LLMatcher.grammar_from_json_schema(constraint.rule, _ONE_LINE)
        if constraint.kind == REGEX:
            return LLMatcher.grammar_from_regex(constraint.rule)
        return grammar_from("gbnf", constraint.rule)  # what is none is taken for Lark
    except ValueError as error:
        raise _wrong(constraint, str(error)) from error


def _wrong(constraint: Constraint, reason: str) -> GrammarError:
    return GrammarError(f"the {constraint.kind} {constraint.rule[:60]!r} cannot be followed: {_first_line(reason)}")


def _first_line(reason: str) -> str:
    return next(iter(reason.strip().splitlines()), "no reason given")


class Grammar:
    """One text held to a constraint. Implements ``protocol.ports.Grammar``."""

    def __init__(
        self, matcher: "LLMatcher", vocab_size: int, stop_tokens: Sequence[int], plain: Callable[[], PlainTokens]
    ) -> None:
        self._matcher, self._stops, self._plain = matcher, frozenset(stop_tokens), plain
        self._anything = b"\xff" * (-(-vocab_size // 32) * 4)
        self._mask = b""  # at the end of the text, once it is known
        self.complete = False

    def follow(self, tokens: Sequence[int], most: int = 0) -> list[int]:
        """The text grew by ``tokens``; the next ones that are forced, up to ``most``, are part of it then, too.

        ``complete`` says afterwards whether the text has ended. Raises GrammarError for a token that is forbidden.
        """
        for token in tokens:
            self._take(token)
        forced: list[int] = []
        while len(forced) < most and not self.complete and (one := only(self._allowed())) is not None:
            forced.append(one)
            self._take(one)
        return forced

    @property
    def whole(self) -> bool:
        """Whether the text may end here."""
        return self.complete or self._matcher.is_accepting()

    def ending(self, most: int) -> list[int] | None:
        """The fewest tokens, at most ``most``, after which the text is whole; None where a bounded search finds none.

        The text does not grow by them.
        """
        return [] if self.whole else shortest_ending(self._matcher, self._plain(), self._stops, most)

    def _take(self, token: int) -> None:
        if self.complete:
            return
        self._mask = b""
        if token in self._stops and self._matcher.is_accepting():
            self.complete = True
        elif not self._matcher.consume_token(token):
            raise GrammarError(
                f"token {token} is not what the grammar allows: {_first_line(self._matcher.get_error())}"
            )

    def _allowed(self) -> bytes:
        """The mask at the end of the text."""
        if not self._mask:
            self._mask = self._anything if self.complete else self._bits()
        return self._mask

    def _bits(self) -> bytes:
        """The mask where the matcher is now."""
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise GrammarError(f"the grammar gave up: {_first_line(self._matcher.get_error())}")
        return mask

    def masks(self, tokens: Sequence[int], parents: Sequence[int]) -> tuple[bytes, ...]:
        """What may come at the end of the text, and below each draft node: bit ``n`` of a mask is token ``n``'s.

        ``tokens`` and ``parents`` as in ``protocol.ports.Pass``. Below what is forbidden, anything may come.
        """
        found = [self._allowed()]
        path: list[int] = []  # the nodes that the matcher has taken
        for node, (token, parent) in enumerate(zip(tokens, parents, strict=True)):
            above = found[parent + 1]
            if above is self._anything or token in self._stops or not allows(above, token):
                found.append(self._anything)
                continue
            keep = path.index(parent) + 1 if parent in path else 0
            self._matcher.rollback(len(path) - keep)
            del path[keep:]
            for missing in [*_between(parents, parent, path), node]:
                self._matcher.consume_token(tokens[missing])
                path.append(missing)
            found.append(self._bits())
        self._matcher.rollback(len(path))
        return tuple(found)


def _between(parents: Sequence[int], node: int, path: Sequence[int]) -> list[int]:
    """The nodes from below the last one of ``path`` (from the tip, where it is empty) down to ``node``."""
    missing: list[int] = []
    while node != _TIP and node not in path:
        missing.append(node)
        node = parents[node]
    return missing[::-1]


def allows(mask: bytes, token: int) -> bool:
    """Whether the mask has the token's bit."""
    return token >> 3 < len(mask) and bool(mask[token >> 3] >> (token & 7) & 1)


def only(mask: bytes) -> int | None:
    """The one token that the mask allows; None where it allows more, or none."""
    bits = int.from_bytes(mask, "little")
    return bits.bit_length() - 1 if bits and not bits & (bits - 1) else None
