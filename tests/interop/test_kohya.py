"""Stock diffusers loads a kohya file as a LoRA, and then draws what our merged weights draw; ComfyUI's names by its rule."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
from safetensors import safe_open
from safetensors.torch import load_file
from support.models.tiny import TinySpec, tiny_pipeline
from support.values import factories
from support.values.factories import TinyBase, tiny_request

from rasura.patches.algebra.compose import compose, layers_of
from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.erasers.text_encoder.clip_null_space import ClipNullSpace
from rasura.patches.errors import BaseMismatchError, BoundExceededError, InputError, UnsupportedHostError
from rasura.patches.format.member import Member
from rasura.patches.format.patch import Patch
from rasura.patches.format.spellings.lora_file import UNSIGNED, KohyaFile, encode_lora
from rasura.patches.format.spellings.lora_names import LoraNames
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.types import ParamName

pytest.importorskip("peft", reason="diffusers loads LoRA files with peft")

SPEC = TinySpec(size="medium")
TOLERANCE = 1e-5
KEYS = Path(__file__).parent / "comfyui_sd1_attn2_keys.txt"


def encode_kohya(members: Sequence[Member]) -> KohyaFile:
    return encode_lora(members, LoraNames())


def name_module_key(name: ParamName, *, two_encoders: bool = False) -> str:
    return LoraNames(two_encoders=two_encoders).place(name).key


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Patch, ...]:
    """Two of the UNet, and one of the text encoder, of other ranks."""
    base = TinyBase.at(tmp_path_factory.mktemp("kohya") / "model", SPEC)
    inside = tiny_request("dog", eraser=ClipNullSpace(), layers="auto", rule=RankRule("count", 30))
    return *base.build(tiny_request("dog", "van gogh")), *base.build(inside)


def noise(pipeline: Any) -> torch.Tensor:
    latents = torch.randn(1, 4, 16, 16, generator=factories.generator(0))
    embedding = pipeline.encode_prompt("a photo of a dog", "cpu", 1, do_classifier_free_guidance=False)[0]
    with torch.no_grad():
        found = pipeline.unet(latents, 500, encoder_hidden_states=embedding).sample
    assert isinstance(found, torch.Tensor)
    return found


def merged(*members: Member) -> Any:
    pipeline = tiny_pipeline(SPEC)
    host = TorchHost.of(pipeline)
    layers = layers_of((m.patch.tensors.increments, m.strength) for m in members)
    pristine = host.originals(layer.name for layer in layers)
    host.write({layer.name: compose(pristine[layer.name], layer.terms) for layer in layers})
    return pipeline


def adapted(module: torch.nn.Module) -> int:
    return sum(".lora_A." in name for name, _ in module.named_parameters())


def written(folder: Path, *members: Member) -> Path:
    path = folder / "erased.safetensors"
    path.write_bytes(encode_kohya(members).data)
    return path


@pytest.mark.parametrize("strength", [ONE, Strength(12), Strength(-40)])
def test_diffusers_loads_one_patch_as_our_merge(patches: tuple[Patch, ...], tmp_path: Path, strength: Strength) -> None:
    member = Member(patches[0], strength)
    base, lora, ours = tiny_pipeline(SPEC), tiny_pipeline(SPEC), merged(member)
    lora.load_lora_weights(written(tmp_path, member))
    assert adapted(lora.unet) == len(patches[0].tensors.increments) == 20
    assert float((noise(lora) - noise(ours)).abs().max()) < TOLERANCE
    assert float((noise(base) - noise(ours)).abs().max()) > 1e-2


def test_diffusers_loads_a_stack_of_both_parts_as_our_merge(patches: tuple[Patch, ...], tmp_path: Path) -> None:
    stack = [Member(patches[0], Strength(8)), Member(patches[1]), Member(patches[2], Strength(-8))]
    lora, ours = tiny_pipeline(SPEC), merged(*stack)
    lora.load_lora_weights(written(tmp_path, *stack))
    assert adapted(lora.unet) == 20
    assert adapted(lora.text_encoder) == len(patches[2].tensors.increments)
    assert float((noise(lora) - noise(ours)).abs().max()) < TOLERANCE


def test_the_product_of_the_factors_is_the_exact_sum(patches: tuple[Patch, ...], tmp_path: Path) -> None:
    stack = [Member(p, Strength(s)) for p, s in zip(patches, (12, -3, 16), strict=True)]
    found = load_file(written(tmp_path, *stack))
    layers = layers_of((m.patch.tensors.increments, m.strength) for m in stack)
    assert len(found) == 3 * len(layers)
    ranks = {found[f"{name_module_key(layer.name)}.lora_down.weight"].size(0) for layer in layers}
    assert len(ranks) == 1
    for layer in layers:
        down, up, alpha = (
            found[f"{name_module_key(layer.name)}.{part}"] for part in ("lora_down.weight", "lora_up.weight", "alpha")
        )
        assert float(alpha) == down.shape[0] == up.shape[1]
        total = sum((term.increment.dense(term.strength) for term in layer.terms), torch.zeros(1, dtype=torch.float64))
        assert torch.equal(up.double() @ down.double(), total)


def test_equal_sets_give_equal_bytes_and_say_what_they_are(patches: tuple[Patch, ...], tmp_path: Path) -> None:
    stack = [Member(p) for p in patches]
    made = encode_kohya(stack)
    assert encode_kohya(stack[::-1]).data == made.data
    path = written(tmp_path, *stack)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["rasura.signed"] == UNSIGNED
    assert metadata["rasura.base_sha256"] == patches[0].manifest.base.sha256
    assert all(p.patch_id in metadata["rasura.patches"] for p in patches)
    assert metadata["ss_network_dim"] == metadata["ss_network_alpha"] == str(made.rank)
    assert "lora_adapter_metadata" not in metadata


def test_the_names_are_those_that_comfyui_looks_for() -> None:
    """Of Stable Diffusion 1.x: the names of diffusers' modules behind `lora_unet_`, dots as underscores."""
    places = [f"down_blocks.{b}.attentions.{a}" for b in range(3) for a in range(2)]
    places += ["mid_block.attentions.0", *(f"up_blocks.{b}.attentions.{a}" for b in range(1, 4) for a in range(3))]
    names = [
        ParamName(f"unet.{place}.transformer_blocks.0.attn2.{part}.weight")
        for place in places
        for part in ("to_k", "to_v")
    ]
    assert sorted(map(name_module_key, names)) == KEYS.read_text().split()
    encoder = ParamName("text_encoder.text_model.encoder.layers.11.self_attn.out_proj.weight")
    assert name_module_key(encoder) == "lora_te_text_model_encoder_layers_11_self_attn_out_proj"
    assert name_module_key(encoder, two_encoders=True) == "lora_te1_text_model_encoder_layers_11_self_attn_out_proj"
    second = ParamName(encoder.replace("text_encoder", "text_encoder_2"))
    assert name_module_key(second) == "lora_te2_text_model_encoder_layers_11_self_attn_out_proj"


def test_diffusers_reads_the_names_back() -> None:
    state = {
        f"{key}.{part}": torch.zeros(1, 1)
        for key in KEYS.read_text().split()
        for part in ("lora_down.weight", "lora_up.weight")
    }
    state |= {f"{key}.alpha": torch.tensor(1.0) for key in KEYS.read_text().split()}
    found, alphas = _convert_non_diffusers_lora_to_diffusers(state)
    assert len(found) == 64
    assert len(alphas) == 32
    assert {key.split("transformer_blocks.")[1].split(".")[1] for key in found} == {"attn2"}


@pytest.mark.parametrize(
    "name", ["transformer.transformer_blocks.0.attn.to_k.weight", "unet.mid_block.attn2.processor.to_k_ip.0.weight"]
)
def test_a_parameter_without_a_name_there_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedHostError, match="has no name in such a file"):
        name_module_key(ParamName(name))


def test_a_strength_that_would_lose_digits_is_refused() -> None:
    """63.999996 takes all 24 bits of a float32; three quarters of it need a 25th."""
    world = factories.World()
    (patch,) = world.erase(world.columns("dog", 1))
    name = next(iter(patch.tensors.increments))
    increment = patch.tensors.increments[name]
    full = Increment(increment.A, torch.full_like(increment.B, 64 - 2.0**-18))
    odd = Patch(patch.manifest, replace(patch.arrays, increments={**patch.arrays.increments, name: full}))
    assert encode_kohya([Member(odd, Strength(8))]).rank == increment.rank
    with pytest.raises(BoundExceededError, match="no digit lost"):
        encode_kohya([Member(odd, Strength(12))])


def test_nothing_and_two_bases_are_refused(patches: tuple[Patch, ...]) -> None:
    with pytest.raises(InputError, match="at least one"):
        encode_kohya([])
    other = factories.World()
    (elsewhere,) = other.erase(other.columns("dog", 1))
    with pytest.raises(BaseMismatchError, match="one file serves one base"):
        encode_kohya([Member(patches[0]), Member(elsewhere)])
