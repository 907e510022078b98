"""Stock diffusers loads a patch folder as an ordinary LoRA, and then draws what our merged weights draw.

Measured at float32: noise predictions and images differ by at most 2.1e-6, while the erasure changes them by 0.03.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.models.tiny import TinySpec, tiny_pipeline
from support.values import factories
from support.values.factories import TinyBase, tiny_request

from rasura.patches.algebra.compose import compose, layers_of
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.erasers.text_encoder.clip_null_space import ClipNullSpace
from rasura.patches.errors import NotFiniteError, UnsupportedHostError
from rasura.patches.format.patch import WEIGHTS, Patch, write_folder
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.types import ParamName

pytest.importorskip("peft", reason="diffusers loads LoRA files with peft")
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")

SPEC = TinySpec(size="medium")
PROMPT = "a photo of a dog"
TOLERANCE = 1e-5
EFFECT = 1e-2

Drawing = Callable[[Any], torch.Tensor]


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Patch, ...]:
    return TinyBase.at(tmp_path_factory.mktemp("interop") / "model", SPEC).build(tiny_request("dog", "van gogh"))


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Patch:
    """Erases the dog from the text encoder."""
    request = tiny_request("dog", eraser=ClipNullSpace(), layers="auto", rule=RankRule("count", 30))
    return TinyBase.at(tmp_path_factory.mktemp("interop") / "model", SPEC).build(request)[0]


def noise(pipeline: Any) -> torch.Tensor:
    """One noise prediction [1, 4, 16, 16]."""
    latents = torch.randn(1, 4, 16, 16, generator=factories.generator(0))
    embedding = pipeline.encode_prompt(PROMPT, "cpu", 1, do_classifier_free_guidance=False)[0]
    with torch.no_grad():
        found = pipeline.unet(latents, 500, encoder_hidden_states=embedding).sample
    assert isinstance(found, torch.Tensor)
    return found


def image(pipeline: Any) -> torch.Tensor:
    """Three guided steps and the decoder, [1, 32, 32, 3] from 0 to 1."""
    done = pipeline(
        PROMPT, num_inference_steps=3, guidance_scale=7.5, output_type="np", generator=factories.generator(0)
    )
    return torch.from_numpy(done.images)


def merged(*stack: tuple[Patch, Strength]) -> Any:
    """A pipeline whose weights are the stack's."""
    pipeline = tiny_pipeline(SPEC)
    host = TorchHost.of(pipeline)
    layers = layers_of((patch.tensors.increments, strength) for patch, strength in stack)
    pristine = host.originals(layer.name for layer in layers)
    host.write({layer.name: compose(pristine[layer.name], layer.terms) for layer in layers})
    return pipeline


def exported(patch: Patch, folder: Path) -> Path:
    write_folder(folder, patch.files())
    return folder


def adapted(unet: torch.nn.Module) -> set[str]:
    """The modules that a LoRA was put around."""
    return {name.split(".lora_A.")[0] for name, _ in unet.named_parameters() if ".lora_A." in name}


def difference(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left - right).abs().max())


def test_every_layer_of_the_folder_is_loaded(patches: tuple[Patch, ...], tmp_path: Path) -> None:
    """Diffusers only warns of keys that match nothing, so the modules are counted."""
    pipeline = tiny_pipeline(SPEC)
    pipeline.load_lora_weights(exported(patches[0], tmp_path / "patch"))
    expected = {name.removeprefix("unet.").removesuffix(".weight") for name in patches[0].tensors.increments}
    assert adapted(pipeline.unet) == expected
    assert len(expected) == 20
    assert adapted(pipeline.text_encoder) == set()


def test_a_loaded_folder_is_our_merge(patches: tuple[Patch, ...], tmp_path: Path) -> None:
    base, lora, ours = tiny_pipeline(SPEC), tiny_pipeline(SPEC), merged((patches[0], ONE))
    lora.load_lora_weights(exported(patches[0], tmp_path / "patch"))
    for draw in (noise, image):
        assert difference(draw(lora), draw(ours)) < TOLERANCE
        assert difference(draw(base), draw(ours)) > EFFECT


def test_two_adapters_with_weights_are_our_stack_with_strengths(patches: tuple[Patch, ...], tmp_path: Path) -> None:
    base, lora = tiny_pipeline(SPEC), tiny_pipeline(SPEC)
    for name, patch in zip("ab", patches, strict=True):
        lora.load_lora_weights(exported(patch, tmp_path / name), adapter_name=name)
    lora.set_adapters(["a", "b"], [0.5, -2.0])
    ours = merged((patches[0], Strength(8)), (patches[1], Strength(-32)))
    for draw in (noise, image):
        assert difference(draw(lora), draw(ours)) < TOLERANCE
        assert difference(draw(base), draw(ours)) > EFFECT


def test_the_file_alone_and_the_state_dict_load_too(patches: tuple[Patch, ...], tmp_path: Path) -> None:
    folder = exported(patches[0], tmp_path / "patch")
    whole, file, loaded = (tiny_pipeline(SPEC) for _ in range(3))
    whole.load_lora_weights(folder)
    file.load_lora_weights(folder / WEIGHTS)
    loaded.load_lora_weights(load_file(folder / WEIGHTS))
    assert torch.equal(noise(whole), noise(file))
    assert torch.equal(noise(whole), noise(loaded))


def test_unloading_leaves_the_base(patches: tuple[Patch, ...], tmp_path: Path) -> None:
    pipeline = tiny_pipeline(SPEC)
    before = noise(pipeline)
    pipeline.load_lora_weights(exported(patches[0], tmp_path / "patch"))
    assert not torch.equal(noise(pipeline), before)
    pipeline.unload_lora_weights()
    assert torch.equal(noise(pipeline), before)


def test_reverting_ours_gives_the_very_images_of_the_base(patches: tuple[Patch, ...]) -> None:
    """What fusing and unfusing a LoRA does not."""
    pipeline = merged((patches[0], ONE), (patches[1], Strength(-7)))
    host = TorchHost.of(pipeline)
    names = host.kept()
    host.write(host.originals(names), forget=names)
    base = tiny_pipeline(SPEC)
    assert torch.equal(noise(pipeline), noise(base))
    assert torch.equal(image(pipeline), image(base))


def test_fusing_and_unfusing_does_not_restore_the_weights(patches: tuple[Patch, ...], tmp_path: Path) -> None:
    """If this ever fails, diffusers has learnt it, and the README's comparison must go."""
    pipeline, base = tiny_pipeline(SPEC), tiny_pipeline(SPEC)
    pipeline.load_lora_weights(exported(patches[0], tmp_path / "patch"))
    pipeline.fuse_lora()
    pipeline.unfuse_lora()
    pipeline.unload_lora_weights()
    names = [name.removeprefix("unet.") for name in patches[0].tensors.increments]
    after, before = pipeline.unet.state_dict(), base.unet.state_dict()
    changed = torch.cat([(after[name] != before[name]).flatten() for name in names])
    assert float(changed.double().mean()) > 0.01


def test_a_prefix_that_fits_nothing_loads_nothing_without_a_word(patches: tuple[Patch, ...], tmp_path: Path) -> None:
    """The pipeline goes on and draws the concept; a parameter that we do not find is an error."""
    factors = load_file(exported(patches[0], tmp_path / "patch") / WEIGHTS)
    other = {f"base_model.model.{key.removeprefix('unet.')}": tensor for key, tensor in factors.items()}
    pipeline, base = tiny_pipeline(SPEC), tiny_pipeline(SPEC)
    pipeline.load_lora_weights(other)
    assert adapted(pipeline.unet) == set()
    assert torch.equal(noise(pipeline), noise(base))
    host = TorchHost.of(pipeline)
    names = list(patches[0].tensors.increments)
    values = host.read(names) | {ParamName("unet.nowhere.weight"): torch.ones(2, 2)}
    with pytest.raises(UnsupportedHostError, match=r"expected a parameter unet\.nowhere\.weight, got none"):
        host.write(values)
    assert host.kept() == frozenset()


def test_one_bad_layer_leaves_others_fused(patches: tuple[Patch, ...], tmp_path: Path) -> None:
    """Diffusers' own check for NaN comes layer by layer, after those before were written."""
    factors = load_file(exported(patches[0], tmp_path / "patch") / WEIGHTS)
    pipeline, base = tiny_pipeline(SPEC), tiny_pipeline(SPEC)
    names = [name.removeprefix("unet.").removesuffix(".weight") for name in patches[0].tensors.increments]
    order = [name for name, _ in pipeline.unet.named_modules() if name in names]
    factors[f"unet.{order[-1]}.lora_B.weight"] *= float("nan")
    pipeline.load_lora_weights(factors)
    with pytest.raises(ValueError, match="NaN"):
        pipeline.fuse_lora(safe_fusing=True)
    pipeline.unload_lora_weights()
    after, before = pipeline.unet.state_dict(), base.unet.state_dict()
    assert not torch.equal(after[f"{order[0]}.weight"], before[f"{order[0]}.weight"])
    host = TorchHost.of(base)
    values = {ParamName(f"unet.{name}.weight"): before[f"{name}.weight"] + 1 for name in order}
    values[ParamName(f"unet.{order[-1]}.weight")] *= float("nan")
    with pytest.raises(NotFiniteError):
        host.write(values)
    assert host.kept() == frozenset()


def test_a_patch_of_the_text_encoder_is_loaded_as_our_merge(inside: Patch, tmp_path: Path) -> None:
    base, lora, ours = tiny_pipeline(SPEC), tiny_pipeline(SPEC), merged((inside, ONE))
    lora.load_lora_weights(exported(inside, tmp_path / "patch"))
    assert len(adapted(lora.text_encoder)) == len(inside.tensors.increments) == 2
    assert adapted(lora.unet) == set()
    for draw in (noise, image):
        assert difference(draw(lora), draw(ours)) < TOLERANCE
        assert difference(draw(base), draw(ours)) > 1e-3
    lora.unload_lora_weights()
    assert torch.equal(noise(lora), noise(base))


def test_text_encoder_and_unet_side_by_side(inside: Patch, patches: tuple[Patch, ...], tmp_path: Path) -> None:
    lora, ours = tiny_pipeline(SPEC), merged((inside, Strength(8)), (patches[1], ONE))
    for name, patch in (("inside", inside), ("outside", patches[1])):
        lora.load_lora_weights(exported(patch, tmp_path / name), adapter_name=name)
    lora.set_adapters(["inside", "outside"], [0.5, 1.0])
    for draw in (noise, image):
        assert difference(draw(lora), draw(ours)) < TOLERANCE
