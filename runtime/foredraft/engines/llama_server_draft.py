"""The drafter on a ``llama-server``: token ids out, the most probable candidates for the next one back.

One request per node: the server keeps what it has run (``cache_prompt``), so that a chain costs it a token each, and
a branch what differs. Candidates (``n_probs``) become siblings. At a temperature above 0 the session's shared noise
decides among the candidates; a token that is not one of them cannot be guessed.
"""

import asyncio
import math
from collections.abc import Sequence

import aiohttp

from foredraft.engines.llama_server import PROMPT_S, Candidate, LlamaServer
from foredraft.errors import ModelError
from foredraft.protocol.ports import Guess
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import Node

_JSON = {"Content-Type": "application/json"}
_TIMEOUT = aiohttp.ClientTimeout(PROMPT_S)


class LlamaServerDrafter:
    """One session's drafter. ``candidates``: how many are asked for; ``nodes``: how many requests at once, at most.

    Several nodes at once take as many of the server's slots, each of which reads the prompt anew.
    """

    def __init__(self, server: LlamaServer, *, candidates: int = 40, nodes: int = 1) -> None:
        self.server = server
        self.max_nodes_per_step = nodes
        self._candidates = candidates
        self._text: list[int] = []
        self._sampling = Sampling()
        self._http: aiohttp.ClientSession | None = None

    @property
    def tokenizer_digest(self) -> str:
        """Digest of the tokenizer that its vocabulary was compared with; empty before."""
        return self.server.tokenizer_digest

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """A text begins with these tokens; the server reads what it lacks of them with the first step.

        Raises ModelError for a text that the server's context does not hold.
        """
        if len(tokens) > self.server.context:
            raise ModelError(
                f"a text of {len(tokens)} tokens is longer than the draft's context of {self.server.context}; "
                "start llama-server with more, by --ctx-size"
            )
        self._text, self._sampling = list(tokens), sampling

    def advance(self, tokens: Sequence[int]) -> None:
        """The committed text grew by ``tokens``. Never waits."""
        self._text.extend(tokens)

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        """For each node up to ``width`` guesses, best first; none for dead nodes and at the context's end.

        Raises ModelError when the server is gone, or answers what cannot be understood. Cancelled, it closes the
        connections, by which the server gives up too.
        """
        text = tuple(self._text)
        asked = [node if node.alive and node.position < self.server.context else None for node in nodes]
        return await asyncio.gather(*(self._guesses(text, node, width) for node in asked))

    async def _guesses(self, text: tuple[int, ...], node: Node | None, width: int) -> list[Guess]:
        if node is None:
            return []
        wanted = max(width, self._candidates if self._sampling.temperature else 0)
        found = await self._predicted([*text, *(step.token for step in node.path())], wanted)
        if self._sampling.temperature == 0.0:
            known = [one for one in found[:width] if one.id < self.server.spoken]
            return [Guess(one.id, math.exp(one.logprob)) for one in known]
        return _with_noise(found, self.server.spoken, node.position, width, self._sampling)

    async def _predicted(self, tokens: Sequence[int], candidates: int) -> list[Candidate]:
        if self._http is None:
            self._http = aiohttp.ClientSession(timeout=_TIMEOUT, headers=_JSON)
        server = self.server
        try:
            async with self._http.post(server.url + "/completion", data=server.question(tokens, candidates)) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, OSError) as error:
            raise server.unreachable(error) from error
        if answer.status != 200:
            raise server.refused(answer.status, body)
        return server.candidates(body)

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close()
            self._http = None


def _with_noise(
    candidates: Sequence[Candidate], vocab_size: int, position: int, width: int, sampling: Sampling
) -> list[Guess]:
    """The best of the candidates with the noise of the token at ``position``."""
    import numpy as np

    from foredraft.engines.numpy_guesses import best

    row = np.full((1, vocab_size), -np.inf, np.float32)
    for one in candidates:
        if one.id < vocab_size:
            row[0, one.id] = one.logprob
    return best(row, [position], width, sampling)[0]
