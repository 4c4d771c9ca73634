"""A text's place on a synthetic target, by either rule of acceptance.

By shared noise the target says its own text, and the draft's choice of a rank is right where the pair says so. By
rejection sampling it is the same luck, and a rank is a place in the order of trial: ``ranks[0]`` is how often the
candidate that is tried first is accepted, ``ranks[1]`` how often the second one is in its stead, and so on. What is
tried depends on the draft, so the text does. Exits name what comes as often as the pair says, by both rules.
"""

from collections.abc import Callable, Sequence

from foredraft.engines.scripted import ScriptedSlot
from foredraft.protocol.ports import Pass, Prediction, Verdict
from foredraft.protocol.rejection import Trial
from foredraft_sim.tokens.spoken import Spoken, SpokenPair


class SyntheticSlot(ScriptedSlot):
    """It takes no time."""

    def __init__(self, pair: SpokenPair, said: Spoken) -> None:
        """``said``: of this text."""
        super().__init__(pair.layers, said.truth, said.predict, yields=False)
        self._pair, self._said = pair, said

    async def verify(self, batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
        """What comes after the tip and after each node; the exits before it."""
        if not batch.trials:
            return await super().verify(batch, on_exit)
        places = [self._cached + len(batch.trunk)]
        for parent in batch.parents:
            places.append(places[parent + 1] + 1)
        comes = tuple([self._comes(place, trial) for place, trial in zip(places, batch.trials, strict=True)])
        for layer in batch.exits:
            on_exit(self._thought(layer, places, comes, batch.trials))
        self._cached = places[0]
        return Verdict(Prediction(self._pair.layers, comes, (1.0,) * len(comes)), 0.0, 0.0)

    def _comes(self, position: int, tried: Trial) -> int:
        """The candidate whose turn it is to be accepted there; else a token that is none."""
        rank, truth = self._said.rank(position), self._said.truth(position)
        if 0 <= rank < len(tried.tokens):
            return tried.tokens[rank]
        return truth if truth not in tried.tokens else (truth - 1) % self._pair.vocab_size  # which no draft names

    def _thought(self, layer: int, places: Sequence[int], comes: Sequence[int], tried: Sequence[Trial]) -> Prediction:
        """What an exit names: what comes, or another candidate."""
        named, sure = [], []
        for position, token, trial in zip(places, comes, tried, strict=True):
            said, confidence = self._said.predict(layer, position)
            wrong = next((one for one in trial.tokens if one != token), (token + 1) % self._pair.vocab_size)
            named.append(token if said == self._said.truth(position) else wrong)
            sure.append(confidence)
        return Prediction(layer, tuple(named), tuple(sure))
