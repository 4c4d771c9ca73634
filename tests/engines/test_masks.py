"""Masks on the device."""

import torch

from foredraft.engines.masks import allowed_tokens, held_to


def test_bit_n_of_a_mask_is_token_n_and_what_it_lacks_is_forbidden() -> None:
    found = allowed_tokens([bytes([0b101]), bytes([0, 0b10, 0xFF, 0xFF])], 12, torch.device("cpu"))
    assert found.shape == (2, 12)
    assert [row.nonzero().flatten().tolist() for row in found] == [[0, 2], [9]]


def test_no_forbidden_token_is_ever_the_best_in_any_precision() -> None:
    allowed = torch.zeros(3, 100, dtype=torch.bool)
    allowed[:, 7] = True
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        logits = torch.randn(3, 100).mul(50).to(dtype)
        assert held_to(logits, allowed).argmax(-1).tolist() == [7, 7, 7]
    assert held_to(logits, None) is logits
