"""Code that is broken on purpose is caught, and by the right invariant, within the worlds that are whole without it."""

from collections.abc import Callable

import pytest

from foredraft_sim.chaos.invariants import INVARIANTS
from foredraft_sim.chaos.worlds import outcomes
from sim.chaos.mutations import MUTATIONS
from sim.chaos.worlds_of_tests import SEED, SESSIONS


@pytest.mark.parametrize(("mutate", "invariant"), MUTATIONS, ids=lambda one: getattr(one, "__name__", one))
def test_a_mutation_is_caught_by_its_invariant(
    mutate: Callable[[pytest.MonkeyPatch], None], invariant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    caught = (one.name for outcome in outcomes(SEED, SESSIONS) for one in outcome.broken)
    assert invariant in caught


def test_every_invariant_has_a_mutation_that_breaks_it() -> None:
    assert {invariant for _, invariant in MUTATIONS} == set(INVARIANTS)
