"""A conversation over an edge: turn by turn, each on top of the tokens of the turns before."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from foredraft.api.edge import Edge
from foredraft.api.generation import Generation
from foredraft.errors import ConfigError
from foredraft.images import EncodedImage
from foredraft.text.chat_card import ChatCard
from foredraft.text.chat_template import check_template, render


async def prompt_about(edge: Edge, text: str, images: int, card: ChatCard | None = None) -> str | list[int]:
    """A prompt about so many images: as the model's chat template writes it, unless the text has their places itself.

    ``card``: the model's, where it was asked for already. Raises ConfigError, MissingExtraError.
    """
    mark = edge.ready.image_token
    tokenizer = edge.tokenizer
    if not images or mark is None or tokenizer is None or mark in tokenizer.encode(text):
        return text
    said = [{"role": "user", "content": _content(text, images)}]
    return tokenizer.encode_rendered(render(card or await edge.chat_card(), said))


def _content(text: str, images: int) -> str | list[dict[str, Any]]:
    """What a message says, as templates take it: images first."""
    return [*({"type": "image"} for _ in range(images)), {"type": "text", "text": text}] if images else text


class Conversation:
    """What was said, and the tokens that it is to the model.

    A turn goes on from the tokens of the turns before, as they were generated: both ends have them in their caches, so
    only what is new is run. Where a template rewrites what came before, the whole is encoded anew.
    """

    def __init__(self, edge: Edge, card: ChatCard, system: str = "") -> None:
        """Raises ConfigError for a cloud without a tokenizer, and a model without a chat template."""
        check_template(card)
        if edge.tokenizer is None:
            raise ConfigError("this cloud has no tokenizer, so there is nothing to chat with")
        self._edge, self._card, self._tokenizer = edge, card, edge.tokenizer
        self.messages: list[dict[str, Any]] = []
        self._images: list[EncodedImage] = []
        self._known_text, self._known_tokens = "", list[int]()
        self.begin(system)

    def begin(self, system: str = "") -> None:
        """Forget what was said; ``system``: what the model is told before all else."""
        self.messages = [{"role": "system", "content": system}] if system else []
        self._images, self._known_text, self._known_tokens = [], "", []

    def ask(self, text: str, images: Sequence[EncodedImage] = (), **options: Any) -> Generation:
        """The answer on its way, for ``answered``. ``images``: what the question is about, beside those before.

        ``options``: those of ``Edge.generate``. Raises ConfigError.
        """
        shown = [*self._images, *images]
        self.messages.append({"role": "user", "content": _content(text, len(images))})
        try:
            prompt = self._prompt()
            room = self._edge.ready.context - len(prompt)
            if room < 1:
                raise ConfigError(f"the conversation of {len(prompt)} tokens fills the context; begin anew (/reset)")
            options["max_new_tokens"] = min(options.get("max_new_tokens", room), room)
            generation = self._edge.generate(prompt, images=shown, **options)
        except BaseException:
            self.messages.pop()
            raise
        self._images = shown
        return generation

    def _prompt(self) -> list[int]:
        text = render(self._card, self.messages)
        known, tokens = self._known_text, self._known_tokens
        if known and text.startswith(known):
            rest = text[len(known) :]
            mark = self._tokenizer.special_text(tokens[-1])  # the answer's end mark is there already, as a token
            rest = rest.removeprefix(mark) if mark else rest
            tokens = [*tokens, *self._tokenizer.encode_rendered(rest)]
        else:
            tokens = self._tokenizer.encode_rendered(text)
        self._known_text, self._known_tokens = text, tokens
        return tokens

    def answered(self, generation: Generation) -> str:
        """Take what was generated as the answer, whole or as far as it came; its text."""
        report = generation.report
        self.messages.append({"role": "assistant", "content": report.text})
        self._known_text += report.text
        self._known_tokens = [*self._known_tokens, *report.tokens]
        return report.text

    def save(self, file: Path) -> None:
        """Write the messages as JSON. Raises ConfigError."""
        try:
            file.write_bytes(msgspec.json.format(msgspec.json.encode({"messages": self.messages}), indent=2) + b"\n")
        except OSError as error:
            raise ConfigError(f"cannot write the conversation to {file}: {error.strerror or error}") from error
