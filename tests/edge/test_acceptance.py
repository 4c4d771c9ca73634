"""Which rule of acceptance a text has."""

from dataclasses import replace

import pytest

from foredraft.edge.acceptance import AUTO, ENOUGH, Rules
from foredraft.edge.session_report import SessionReport, Tally, report_of
from foredraft.errors import ConfigError
from foredraft.protocol.sampling import NOISE, REJECTION, Sampling


def seen(acceptance: str, passes: int, tokens: int) -> SessionReport:
    return report_of(
        Tally(passes=passes, drafted=4 * passes),
        tokens=range(tokens),
        prompt_tokens=1,
        policy="sync",
        sampling=Sampling(0.8),
        finish="length",
        text="",
        exact=False,
        acceptance=acceptance,
    )


@pytest.mark.parametrize("rule", [NOISE, REJECTION])
def test_what_is_asked_for_is_what_there_is(rule: str) -> None:
    assert Rules().choose(rule, recorded=False) == rule


def test_rules_take_turns_until_both_are_known() -> None:
    rules, taken = Rules(), []
    for _ in range(2 * ENOUGH // 50):
        taken.append(rules.choose(AUTO, recorded=False))
        rules.saw(seen(taken[-1], 50, 100))
    assert taken == [NOISE, REJECTION] * (ENOUGH // 50)


@pytest.mark.parametrize(("tokens", "better"), [(450, REJECTION), (400, NOISE), (350, NOISE)])
def test_then_the_one_with_more_tokens_per_pass_is_taken(tokens: int, better: str) -> None:
    rules = Rules()
    rules.saw(seen(NOISE, ENOUGH, 400))
    rules.saw(seen(REJECTION, ENOUGH, tokens))
    assert rules.choose(AUTO, recorded=False) == better
    assert rules.choose(AUTO, recorded=True) == NOISE


def test_what_was_better_long_ago_counts_less() -> None:
    rules = Rules()
    rules.saw(seen(NOISE, ENOUGH, 400))
    for _ in range(3):
        rules.saw(seen(REJECTION, 2 * ENOUGH, 1_000))
    assert rules.choose(AUTO, recorded=False) == REJECTION
    for _ in range(4):
        rules.saw(seen(REJECTION, 2 * ENOUGH, 500))
    assert rules.choose(AUTO, recorded=False) == NOISE


def test_texts_without_drafts_or_chance_tell_nothing() -> None:
    rules = Rules()
    rules.saw(replace(seen(NOISE, ENOUGH, 400), drafted=0))
    rules.saw(replace(seen(NOISE, ENOUGH, 400), temperature=0.0))
    assert rules.choose(AUTO, recorded=False) == NOISE


def test_what_is_no_rule_and_a_record_of_rejection_sampling_are_refused() -> None:
    with pytest.raises(ConfigError, match="must be one of noise, rejection, auto, not 'luck'"):
        Rules().choose("luck", recorded=False)
    with pytest.raises(ConfigError, match="cannot be recorded"):
        Rules().choose(REJECTION, recorded=True)
