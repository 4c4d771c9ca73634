"""Tokens a minute: what a key may begin, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.cloud.quota import BYTES, MINUTE_S, TOKENS, Quota
from foredraft.errors import RefusedError
from foredraft.keys import Key

KEY, FREE = Key(name="ada", tokens_per_minute=600), Key(name="bob")


def test_a_text_that_has_begun_may_overdraw_and_the_next_one_waits_until_that_is_paid_back() -> None:
    quota = Quota()
    assert quota.wait_s(KEY, TOKENS, 0.0) == 0.0
    quota.spend(KEY, TOKENS, 900, 0.0)
    assert quota.wait_s(KEY, TOKENS, 0.0) == pytest.approx(301 / 600 * MINUTE_S)
    assert quota.wait_s(KEY, TOKENS, 20.0) == pytest.approx(101 / 600 * MINUTE_S)
    assert quota.wait_s(KEY, TOKENS, 30.2) == 0.0


def test_a_key_without_such_a_limit_never_waits_and_one_key_s_tokens_are_not_another_s() -> None:
    quota = Quota()
    quota.spend(FREE, TOKENS, 1 << 40, 0.0)
    quota.spend(KEY, TOKENS, 1 << 20, 0.0)
    assert quota.wait_s(FREE, TOKENS, 0.0) == 0.0
    assert quota.wait_s(Key(name="eve", tokens_per_minute=1), TOKENS, 0.0) == 0.0


@given(st.lists(st.tuples(st.integers(1, 400), st.floats(0.0, 30.0)), min_size=1, max_size=60))
def test_whoever_waits_as_told_has_at_most_a_minute_s_worth_and_one_text_beyond_the_rate(
    texts: list[tuple[int, float]],
) -> None:
    quota, now_s, spent = Quota(), 0.0, 0
    for tokens, pause_s in texts:
        now_s += pause_s
        now_s += quota.wait_s(KEY, TOKENS, now_s)
        assert quota.wait_s(KEY, TOKENS, now_s + 1e-6) == 0.0
        quota.spend(KEY, TOKENS, tokens, now_s)
        spent += tokens
        assert spent <= KEY.tokens_per_minute * (1 + now_s / MINUTE_S) + 400


def test_each_limit_has_a_bucket_of_its_own_and_is_refused_by_its_name() -> None:
    quota, key = Quota(), Key(name="ada", tokens_per_minute=600, bytes_per_minute=1000)
    quota.spend(key, BYTES, 1500, 0.0)
    assert quota.wait_s(key, TOKENS, 0.0) == 0.0
    with pytest.raises(RefusedError, match=r"1000 bytes a minute \(limit: bytes_per_minute\)") as refused:
        quota.check(key, BYTES, 0.0)
    assert refused.value.retry_after_s == pytest.approx(501 / 1000 * MINUTE_S)
    quota.check(key, BYTES, 31.0)
