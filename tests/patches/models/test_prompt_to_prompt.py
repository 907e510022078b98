"""Prompt-to-prompt on a real UNet: maps are seen, replaced, and everything is as it was afterwards."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models.trainable import base, denoiser, relative, untouched

from rasura.patches.models.prompt_to_prompt import controlled, injecting, match_positions, recording

LENGTH = 77


def prediction(prompt: str, count: int = 2) -> torch.Tensor:
    own = denoiser()
    states = base().encoder.encode_all([prompt]).expand(count, -1, -1)
    with torch.no_grad():
        return own.predict(own.noise(1, count), torch.tensor([100, 800])[:count], states)


def test_a_controlled_pass_that_changes_nothing_predicts_the_same() -> None:
    plain = prediction("dog")
    with untouched(), controlled(denoiser().unet, lambda _, maps: maps):
        pass
    with controlled(denoiser().unet, lambda _, maps: maps):
        assert relative(prediction("dog"), plain) < 1e-6
    assert torch.equal(prediction("dog"), plain)


def test_every_cross_attention_is_recorded_as_a_map_over_tokens() -> None:
    with untouched(), recording(denoiser().unet) as maps:
        prediction("dog")
    assert len(maps) == sum("attn2" in name for name in denoiser().unet.attn_processors) == 4
    for found in maps.values():
        assert found.shape[-1] == LENGTH
        assert found.shape[0] % 2 == 0
        assert torch.allclose(found.sum(-1), torch.ones(found.shape[:-1]), atol=1e-5)


def test_its_own_maps_leave_a_prompt_as_it_is_and_anothers_change_it() -> None:
    plain = prediction("dog")
    eye, everywhere = torch.eye(LENGTH).expand(2, -1, -1), torch.tensor([True, True])
    with recording(denoiser().unet) as own:
        prediction("dog")
    with recording(denoiser().unet) as other:
        prediction("van gogh painting of a cat")
    with injecting(denoiser().unet, own, eye, everywhere):
        assert relative(prediction("dog"), plain) < 1e-5
    with injecting(denoiser().unet, other, eye, everywhere):
        assert relative(prediction("dog"), plain) > 1e-4


def test_only_the_latents_that_shall_take_the_maps_take_them() -> None:
    plain, eye = prediction("dog"), torch.eye(LENGTH).expand(2, -1, -1)
    with recording(denoiser().unet) as other:
        prediction("van gogh painting of a cat")
    with untouched(), injecting(denoiser().unet, other, eye, torch.tensor([False, True])):
        found = prediction("dog")
    assert relative(found[:1], plain[:1]) < 1e-5
    assert relative(found[1:], plain[1:]) > 1e-4


def test_the_unet_has_its_own_processors_back_after_an_exception() -> None:
    def failing(name: str, maps: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    with untouched(), pytest.raises(KeyboardInterrupt), controlled(denoiser().unet, failing):
        prediction("dog")


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9))
def test_matched_tokens_share_all_attention(start: int, source: int, goal: int) -> None:
    found = match_positions(range(start, start + source), range(start, start + goal), LENGTH)
    assert torch.allclose(found.sum(1), torch.ones(LENGTH))
    assert torch.equal(found[:start], torch.eye(LENGTH)[:start])
    last, end = start + source - 1, start + goal - 1
    for distance in range(1, 20):
        assert found[last + distance, end + distance] == 1


def test_words_of_equal_length_are_swapped_one_by_one_and_others_evenly() -> None:
    assert torch.equal(match_positions(range(2, 4), range(2, 4), LENGTH), torch.eye(LENGTH))
    spread = match_positions(range(2, 3), range(2, 5), LENGTH)
    assert torch.allclose(spread[2, 2:5], torch.full((3,), 1 / 3))
    assert spread[76, 76] == spread[74, 76] == 1  # what would fall off the end
    joined = match_positions(range(2, 5), range(2, 3), LENGTH)
    assert joined[2:5, 2].tolist() == [1, 1, 1]
