"""A list's moment comes from blocks; a word less leaves nearly all of them as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models.tiny import tiny_model

from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.prompt_blocks import split_prompts
from rasura.patches.solving.moments import sum_moment

if TYPE_CHECKING:
    from rasura.patches.algebra.protected_subspace import Moment

LISTS = st.lists(st.text(max_size=6), max_size=300)


@given(LISTS, st.sampled_from((1, 2, 8, 32)))
def test_blocks_are_the_list_in_its_order_and_bounded(prompts: list[str], average: int) -> None:
    blocks = list(split_prompts(prompts, average))
    assert [prompt for block in blocks for prompt in block] == prompts
    assert all(1 <= len(block) <= 8 * average for block in blocks)


@given(st.lists(st.text(min_size=1, max_size=6), min_size=40, max_size=200, unique=True), st.data())
def test_a_prompt_less_changes_one_block_or_joins_two(prompts: list[str], data: st.DataObject) -> None:
    left_out = data.draw(st.integers(0, len(prompts) - 1))
    before = {tuple(block) for block in split_prompts(prompts, 4)}
    after = [tuple(block) for block in split_prompts(prompts[:left_out] + prompts[left_out + 1 :], 4)]
    longest = max(len(block) for block in (*before, *after))
    if longest < 8 * 4:  # no block was cut for its length alone
        assert len([block for block in after if block not in before]) <= 1


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    return TextEncoder.load(tiny_model(tmp_path_factory.mktemp("encoder") / "model"))


def summed(encoder: TextEncoder, prompts: list[str], known: dict[str, Moment]) -> tuple[Moment, int]:
    """The moment, and how many prompts the blocks hold that were not known."""
    before = set(known)
    found = sum_moment(encoder, lambda: prompts, len(prompts), known, lambda _: None)
    new = sum(moment.count for key, moment in known.items() if key not in before and moment is not found)
    return found, new // encoder.length


def test_a_word_less_costs_a_block_and_gives_what_a_cold_start_gives(encoder: TextEncoder) -> None:
    words = [f"{a} {b}" for a in ("cat", "painting", "photo", "of", "a") for b in range(60)]
    known: dict[str, Moment] = {}
    first = summed(encoder, words, known)[1]
    warm, second = summed(encoder, words[:150] + words[151:], known)
    cold, every = summed(encoder, words[:150] + words[151:], {})
    assert (first, every) == (300, 299)
    assert 0 < second <= 150
    assert torch.equal(warm.total, cold.total)
    assert warm.count == cold.count == 299 * encoder.length
    assert summed(encoder, words, known)[1] == 0
