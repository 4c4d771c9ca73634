"""The drafters of an edge: one for each text that runs at the moment."""

from pathlib import Path

from foredraft.api.loading import Draft
from foredraft.protocol.ports import Drafter, NewDrafter
from foredraft.text.tokenizer import Tokenizer


class Drafters:
    """Hands out drafters. One that comes back serves the next text, whose beginning it may have in its cache.

    ``only``: a drafter of somebody's own, which serves one text at a time. ``tokenizer``: the draft's, if it has one.
    """

    def __init__(self, draft: str | Path | Drafter | NewDrafter, loaded: Draft | None) -> None:
        """``loaded``: the draft that is given by name."""
        self.only: Drafter | None = None
        self.tokenizer: Tokenizer | None = None
        self._loaded = loaded
        self._free: list[Drafter] = []
        self._lent: list[Drafter] = []
        if loaded is not None:
            self._new = loaded.new
            self.tokenizer = loaded.tokenizer
        elif callable(draft):
            self._new = draft
        elif not isinstance(draft, str | Path):
            self.only = draft

    def take(self) -> Drafter:
        """One that is free, the latest to come back first, or a new one."""
        if self.only is not None:
            return self.only
        drafter = self._free.pop() if self._free else self._new()
        self._lent.append(drafter)
        return drafter

    def give_back(self, drafter: Drafter) -> None:
        """Its text is over."""
        if any(one is drafter for one in self._lent):
            self._lent = [one for one in self._lent if one is not drafter]
            self._free.append(drafter)

    async def close(self) -> None:
        """Close all, also those whose texts were stopped and that come back later, and what they share."""
        drafters, self._free, self._lent = [*self._free, *self._lent], [], []
        for drafter in drafters:
            await drafter.close()
        if self._loaded is not None:
            await self._loaded.close()
