"""Judging a finished pair: run it over the held-out files' first lines and fill in the card."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from foredraft.demo_models.corpus import Corpus
from foredraft.demo_models.judge import (
    PROMPT_LINES,
    SAMPLE_LINES,
    Guesses,
    Tally,
    complete_lines,
    first_lines,
    reads_as_python,
    replay,
)
from foredraft.demo_models.pair import Pair
from foredraft.demo_models.report import GAMMA, REQUIRED, Card
from foredraft.demo_models.samples import TEMPERATURE, Sample, continue_prompt, guess_again, step_durations_s
from foredraft.engines.torch_model import LoadedModel, load_model
from foredraft.exits.heads import ExitHeads

THRESHOLDS = tuple(percent / 100 for percent in range(30, 96, 5))
"""The hint thresholds that are tried."""

OnProgress = Callable[[int, int], None]
"""Told how many samples are done, and how many there will be."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The samples, how many of them (and of the held-out files' own lines) `tokenize` accepts, and the guesses."""

    samples: int
    passed: int
    real_texts: int
    real_passed: int
    guesses: tuple[Guesses, ...]


def judge_pair(pair: Pair, corpus: Corpus, samples: int, on_progress: OnProgress = lambda _done, _all: None) -> Judged:
    """Sample at least `samples` texts, spread evenly over the held-out files that are long enough."""
    target, draft = load_model(pair.target), load_model(pair.draft)
    heads = ExitHeads.load(pair.exits, target) if (pair.exits / "card.json").is_file() else None
    tokenizer = Tokenizer.from_file(str(pair.target / "tokenizer.json"))
    texts = [file.text for file in corpus.held_out if file.text.count("\n") > PROMPT_LINES + SAMPLE_LINES]
    each = max(1, -(-samples // max(1, len(texts))))
    passed, found = 0, list[Guesses]()
    for number, text in enumerate(texts):
        seeds = range(number * each, (number + 1) * each)
        prompt = first_lines(text, PROMPT_LINES)
        for sample in continue_prompt(target.model, tokenizer, prompt, seeds, SAMPLE_LINES):
            passed += _passes(tokenizer, sample)
            found.append(guess_again(target, draft, sample, len(target.layers) // 2, heads))
        on_progress((number + 1) * each, len(texts) * each)
    real = sum(reads_as_python(complete_lines(text, PROMPT_LINES + SAMPLE_LINES) or "'") for text in texts)
    return Judged(len(found), passed, len(texts), real, tuple(found))


def _passes(tokenizer: Tokenizer, sample: Sample) -> bool:
    text = complete_lines(tokenizer.decode(list(sample.tokens[1:])), PROMPT_LINES + SAMPLE_LINES)
    return text is not None and reads_as_python(text)


def tally(guesses: Iterable[Guesses], threshold: float) -> Tally:
    """The passes over all texts at this hint threshold."""
    return sum((replay(one, GAMMA, threshold) for one in guesses), Tally())


def choose_threshold(tallies: Mapping[float, Tally]) -> float:
    """The threshold with most to spare on the scarcer of what is asked for: how often hints go out, and are right."""

    def margin(threshold: float) -> float:
        found = tallies[threshold]
        return min(found.hint_share / REQUIRED["hint_share"][0], found.hint_precision / REQUIRED["hint_precision"][0])

    return max(tallies, key=margin)


def fill_card(
    pair: Pair, judged: Judged, corpus: Mapping[str, int], durations_s: Mapping[str, float], note: str = ""
) -> Card:
    """The card of a judged pair; times the steps on this machine."""
    target, draft = load_model(pair.target), load_model(pair.draft)
    step_s = step_durations_s([target.model, draft.model])
    tallies = {threshold: tally(judged.guesses, threshold) for threshold in THRESHOLDS}
    threshold = choose_threshold(tallies)
    chosen = tallies[threshold]
    hinted = any(one.early for one in judged.guesses)
    figures = {
        "tokenize_pass_rate": judged.passed / max(1, judged.samples),
        "tokens_per_pass": chosen.tokens_per_pass,
        "hint_precision": chosen.hint_precision if hinted else None,
        "hint_share": chosen.hint_share if hinted else None,
        "draft_speedup": step_s[0] / step_s[1],
        "size_mb": pair.size_bytes / 1e6,
    }
    return Card(
        figures=figures,
        conditions={**_conditions(judged, threshold), "step_ms_of_target_and_draft": [1e3 * s for s in step_s]},
        models={"target": _describe(target), "draft": _describe(draft), "exits": _exits(pair, target)},
        corpus=dict(corpus),
        durations_s=dict(durations_s),
        note=note,
        hints=[
            {"threshold": at, "share": found.hint_share, "precision": found.hint_precision}
            for at, found in tallies.items()
            if hinted
        ],
    )


def _conditions(judged: Judged, threshold: float) -> dict[str, Any]:
    return {
        "temperature": TEMPERATURE,
        "draft_tokens_per_chain": GAMMA,
        "prompt": f"the first {PROMPT_LINES} lines of a held-out file, normalised",
        "sample": f"{SAMPLE_LINES} complete lines after it; unfinished within the context counts as refused",
        "samples": judged.samples,
        "samples_accepted": judged.passed,
        "held_out_files_own_lines_accepted": f"{judged.real_passed} of {judged.real_texts}",
        "hint_threshold": threshold,
        "weights": "stored in float16, run in float32",
    }


def _describe(model: LoadedModel) -> str:
    config = model.config
    count = sum(parameter.numel() for parameter in model.model.parameters())
    return (
        f"{count / 1e6:.2f} million parameters, {config.num_hidden_layers} layers of {config.hidden_size}, "
        f"vocabulary {config.vocab_size}, context {config.max_position_embeddings} tokens"
    )


def _exits(pair: Pair, target: LoadedModel) -> str:
    if not (pair.exits / "card.json").is_file():
        return "none yet"
    layers: Sequence[int] = ExitHeads.load(pair.exits, target).layers
    return f"after layers {', '.join(map(str, layers))} of {len(target.layers)}"
