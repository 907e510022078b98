"""Every family of models: told apart, patched and put back live and on disk, and honest about what reads text."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models.tiny_families import NAMES, TinyFamily, dual_attention, tiny_family, tiny_pipeline_of
from support.values import factories
from torch import nn

from rasura.patches.algebra.compose import compose, layers_of
from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.erasers.closed_form.null_space import NullSpace
from rasura.patches.erasers.text_encoder.clip_null_space import ClipNullSpace
from rasura.patches.erasers.trained.all_but_one import AllButOne
from rasura.patches.erasers.trained.sepme import SepMe
from rasura.patches.errors import UnsupportedHostError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.interface import Host, ParameterInfo
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.models.base_identity import find_cross_attention
from rasura.patches.models.families import FAMILIES, find_family
from rasura.patches.types import ParamName

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
WHOLE = [name for name in NAMES if name.startswith("SD") and name != "SD3"]  # attn2 reads text embeddings there


def live(family: TinyFamily) -> TorchHost:
    return TorchHost(family.components, family.name)


def increments(infos: Mapping[ParamName, ParameterInfo], seed: int) -> dict[ParamName, Increment]:
    """Random increments of every layer that sees text, and of every third other matrix that is not tied."""
    family = find_family(infos)
    names = [n for n, info in infos.items() if len(info.shape) == 2 and n.endswith("weight") and "shared" not in n]
    chosen = {*names[::3], *(name for name in names if family is not None and family.reads(name) is not None)}
    shapes = {name: infos[name].shape for name in sorted(chosen)}
    return {
        name: factories.increment(seed + i, d_out, d_in, rank=2)
        for i, (name, (d_out, d_in)) in enumerate(shapes.items())
    }


def move(host: Host, *stack: tuple[Mapping[ParamName, Increment], Strength]) -> None:
    """Bring a host to this set of patches, from whatever is there."""
    layers = {layer.name: layer.terms for layer in layers_of(stack)}
    pristine = host.originals({*layers, *host.kept()})
    forget = host.kept() - layers.keys()
    host.write({name: compose(tensor, layers.get(name, ())) for name, tensor in pristine.items()}, forget=forget)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_patches_of_every_layer_come_and_go_live_and_on_disk(name: str, dtype: str, tmp_path: Path) -> None:
    family = tiny_family(name, DTYPES[dtype])
    memory: Host = live(family)
    disk: Host = CheckpointHost.open(family.save(tmp_path / "model"))
    infos = memory.parameters()
    assert infos == disk.parameters()
    assert {info.dtype for info in infos.values()} == {dtype}
    before, pictures = memory.digests(infos), family.draw()
    assert disk.digests(infos) == before
    first, second = increments(infos, 0), increments(infos, 10_000)
    assert {n.split(".")[0] for n in first} == set(family.components)
    seen = []
    for stack in ([(first, ONE)], [(first, ONE), (second, Strength(-8))], [(second, Strength(-8))]):
        for host in (memory, disk):
            move(host, *stack)
        assert memory.digests(infos) == disk.digests(infos)
        seen.append(family.draw())
        assert torch.isfinite(seen[-1]).all()
    assert not any(torch.equal(one, other) for i, one in enumerate(seen) for other in [pictures, *seen[:i]])
    for host in (memory, disk):
        move(host)
        assert host.digests(infos) == before
        assert host.kept() == frozenset()
    assert torch.equal(family.draw(), pictures)


@pytest.mark.parametrize("name", NAMES)
def test_a_family_is_told_from_its_parameters_alone(name: str) -> None:
    infos = live(tiny_family(name)).parameters()
    assert [family.name for family in FAMILIES if family.fits(infos)] == [name]
    family = find_family(infos)
    assert family is not None
    assert set(family.components) == {parameter.split(".")[0] for parameter in infos}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_to_read_text_reads_text(name: str) -> None:
    """Hooks see the inputs: the embeddings themselves for `text`, and something else for everything else."""
    family = tiny_family(name)
    row = find_family(live(family).parameters())
    assert row is not None
    given, seen = family.inputs["encoder_hidden_states"], {}
    for part in ("unet", "transformer"):
        if part not in family.components:
            continue
        for key, module in family.components[part].named_modules():
            if (reads := row.reads(ParamName(f"{part}.{key}.weight"))) is not None:
                module.register_forward_pre_hook(lambda _, args, k=key, r=reads: seen.update({k: (r, args[0])}))
    family.draw()
    assert {reads for reads, _ in seen.values()} >= {"text"}
    for key, (reads, value) in seen.items():
        assert (value.shape == given.shape and torch.equal(value, given)) == (reads == "text"), key


def test_attn2_of_dual_blocks_reads_the_picture() -> None:
    """By its name alone it would be taken for cross-attention, and a patch of it would erase nothing."""
    transformer = dual_attention()
    family = TinyFamily("SD3", {"transformer": transformer}, tiny_family("SD3").inputs)
    block, inputs = transformer.get_submodule("transformer_blocks.0.attn2.to_k"), []
    block.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    family.draw()
    family = TinyFamily(
        "SD3", {"transformer": transformer}, {**family.inputs, "encoder_hidden_states": torch.ones(1, 7, 64)}
    )
    family.draw()
    assert inputs[0].shape[1] == 16  # patches of the picture, not seven tokens
    assert torch.equal(*inputs)  # another text changes nothing of what it reads
    with pytest.raises(UnsupportedHostError, match=r"attn2\.to_k\.weight, which reads the picture alone"):
        find_cross_attention(live(family).parameters(), "k")


@pytest.mark.parametrize("name", WHOLE)
def test_cross_attention_of_unets(name: str) -> None:
    infos = live(tiny_family(name)).parameters()
    found = find_cross_attention(infos, "kv")
    assert found == [n for n in infos if ".attn2.to_k." in n or ".attn2.to_v." in n]
    assert len(found) == {"SDXL": 16}.get(name, 8)


@pytest.mark.parametrize(
    ("name", "got", "instead"),
    [
        ("SD3", "none", r"SD3 family, whose text enters through transformer\.context_embedder\.weight \(width 64\)"),
        ("FLUX", "none", r"FLUX family, whose text enters through transformer\.context_embedder\.weight \(width 64\)"),
    ],
)
def test_families_without_a_linear_text_layer_say_what_they_have(name: str, got: str, instead: str) -> None:
    infos = live(tiny_family(name)).parameters()
    asked: list[Callable[[], object]] = [
        lambda: find_cross_attention(infos, "kv"),
        lambda: NullSpace().parameters(infos, "kv", 64),
    ]
    for ask in asked:
        with pytest.raises(UnsupportedHostError, match=f"got [a-z.]*{got}.*{instead}") as caught:
            ask()
        assert caught.value.details["family"] == name


def test_cross_attention_behind_a_projection_is_of_its_width() -> None:
    """PixArt's reads what two fixed layers make of the text: embeddings as they come do not fit."""
    infos = live(tiny_family("PixArt")).parameters()
    assert len(NullSpace().parameters(infos, "kv", 32)) == 4
    with pytest.raises(UnsupportedHostError, match="width 32, as the model reads them, got 64"):
        NullSpace().parameters(infos, "kv", 64)
    assert NullSpace().parameters(infos, "text", 64) == ["transformer.caption_projection.linear_1.weight"]


@pytest.mark.parametrize("name", ["SDXL", "SD3", "FLUX", "PixArt"])
def test_methods_that_follow_one_clip_encoder_name_what_they_would_need(name: str) -> None:
    infos = live(tiny_family(name)).parameters()
    row = find_family(infos)
    assert row is not None
    asked: list[Callable[[], object]] = [lambda: ClipNullSpace().parameters(infos, "auto", 24)]
    if name == "SDXL":
        asked += [
            lambda: SepMe().parameters(infos, "kv", 56),
            lambda: AllButOne().parameters(infos, "kv", 56),
            lambda: AllButOne().parameters(infos, "out", 56),
        ]
    for ask in asked:
        with pytest.raises(UnsupportedHostError, match="embeddings of one CLIP text encoder") as caught:
            ask()
        assert caught.value.details["encoders"] == tuple(encoder.component for encoder in row.encoders)
        assert all(f"{e.component} ({e.kind}, width {e.width})" in caught.value.message for e in row.encoders)


def test_methods_on_embeddings_read_both_encoders_of_sdxl() -> None:
    infos = live(tiny_family("SDXL")).parameters()
    assert len(NullSpace().parameters(infos, "kv", 56)) == 16
    with pytest.raises(UnsupportedHostError, match="width 56, as the model reads them, got 24"):
        NullSpace().parameters(infos, "kv", 24)  # the first encoder alone


def infos_of(*names: str) -> dict[ParamName, ParameterInfo]:
    return {ParamName(name): ParameterInfo(ParamName(name), "F32", (8, 8)) for name in names}


@pytest.mark.parametrize(
    "names",
    [
        ("transformer.blocks.0.attn2.to_k.weight",),  # a family that is not in the table
        ("unet.mid.attn2.to_k.weight", "unet.encoder_hid_proj.weight"),  # as in DeepFloyd IF: text is projected first
    ],
)
def test_what_is_not_known_to_read_text_is_not_taken_for_it(names: tuple[str, ...]) -> None:
    assert find_family(infos_of(*names)) is None
    with pytest.raises(UnsupportedHostError, match=r"what it reads is not known"):
        find_cross_attention(infos_of(*names), "k")


def test_tied_embeddings_have_one_name_and_are_not_written() -> None:
    """T5 reads one tensor under two names; written under one of them, both change."""
    family = tiny_family("PixArt")
    host = live(family)
    tied, twin = ParamName("text_encoder.shared.weight"), ParamName("text_encoder.encoder.embed_tokens.weight")
    assert tied in host.parameters()
    assert twin not in host.parameters()
    for name in (tied, twin):
        with pytest.raises(UnsupportedHostError, match="expected memory of its own"):
            host.write({name: torch.zeros_like(host.read([tied])[tied])})


def test_saved_buffers_are_parameters_like_on_disk(tmp_path: Path) -> None:
    """SD3's position embedding: part of what a checkpoint holds, and of what a base is."""
    family = tiny_family("SD3")
    name = ParamName("transformer.pos_embed.pos_embed")
    disk = CheckpointHost.open(family.save(tmp_path / "model"))
    assert live(family).digests([name]) == disk.digests([name])


@pytest.mark.parametrize("name", ["SDXL", "SD3", "FLUX", "PixArt"])
def test_pictures_of_pipelines_change_and_come_back(name: str) -> None:
    pipeline, draw = tiny_pipeline_of(tiny_family(name))
    host = TorchHost.of(pipeline)
    infos = host.parameters()
    family = find_family(infos)
    assert family is not None
    before = draw()
    move(host, ({n: i for n, i in increments(infos, 0).items() if family.reads(n) == "text"}, ONE))
    after = draw()
    assert float((after - before).abs().max()) > 1e-4
    move(host)
    assert torch.equal(draw(), before)


def test_both_spellings_of_clip_are_one_model(tmp_path: Path) -> None:
    """Older versions of transformers saved `text_model.encoder…` where newer ones save `encoder…`."""
    family = tiny_family("SD 1.x")
    folder = family.save(tmp_path / "model")
    file = folder / "text_encoder" / "model.safetensors"
    short = load_file(file)
    assert not any(key.startswith("text_model.") for key in short)
    save_file({f"text_model.{key}": tensor for key, tensor in short.items()}, file, {"format": "pt"})
    disk, memory = CheckpointHost.open(folder), live(family)
    infos = memory.parameters()
    assert disk.parameters() == infos
    stack = ({n: i for n, i in increments(infos, 0).items() if n.startswith("text_encoder.")}, ONE)
    for host in (disk, memory):
        move(host, stack)
    assert disk.digests(infos) == memory.digests(infos) != memory.original_digests(infos)


# --- The published configurations, without their weights --------------------------------------------------------------


def _published(name: str) -> nn.Module:
    projection = {"use_linear_projection": True}
    made: dict[str, Callable[[], nn.Module]] = {
        "SD 1.x": lambda: diffusers.UNet2DConditionModel(cross_attention_dim=768),
        "SD 2.x": lambda: diffusers.UNet2DConditionModel(
            cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), **projection
        ),
        "SDXL": lambda: diffusers.UNet2DConditionModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(5, 10, 20),
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            transformer_layers_per_block=(1, 2, 10),
            projection_class_embeddings_input_dim=2816,
            cross_attention_dim=2048,
            **projection,
        ),
        "SD3": lambda: diffusers.SD3Transformer2DModel(
            num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192
        ),
        "FLUX": lambda: diffusers.FluxTransformer2DModel(guidance_embeds=True),
        "PixArt": lambda: diffusers.PixArtTransformer2DModel(sample_size=128, caption_channels=4096),
    }
    with torch.device("meta"):
        return made[name]()


@pytest.mark.parametrize(
    ("name", "millions", "readers", "width"),
    [
        ("SD 1.x", 860, 32, 768),
        ("SD 2.x", 866, 32, 1024),
        ("SDXL", 2567, 140, 2048),
        ("SD3", 2085, 1, 4096),
        ("FLUX", 11901, 1, 4096),
        ("PixArt", 611, 1, 4096),
    ],
)
def test_the_published_models_are_recognised(name: str, millions: int, readers: int, width: int) -> None:
    infos = TorchHost.of(_published(name)).parameters()
    assert round(sum(math.prod(info.shape) for info in infos.values()) / 1e6) == millions
    family = find_family(infos)
    assert family is not None
    assert family.name == name
    found = family.reading(infos)
    assert len(found) == readers
    assert {infos[parameter].shape[-1] for parameter in found} == {width}
    if name in WHOLE:
        assert find_cross_attention(infos, "kv") == found


def test_the_page_has_every_family() -> None:
    page = (Path(__file__).parents[3] / "docs" / "hosts.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("|")]
    for family in FAMILIES:
        row = "".join(line for line in lines if line.split("|")[1].strip() == family.name)  # some have two
        named = re.findall(r"(?:CLIP|T5|Pipeline, [\w ]+) \((\d+)", row)
        read = family.encoders[:1] if family.encoders[0].kind == "pipeline" else family.encoders
        assert sorted({int(width) for width in named}) == sorted({e.width for e in read})
        assert "`null-space`" in row
        for reader in family.readers:
            ends = reader.pattern.removesuffix(".weight").removeprefix("transformer.").split("*.")
            layer = "0.".join(ends) if family.layered and reader.reads == "text" else ends[-1]  # maps are told apart
            unsaid = {"pooled", "picture", "projected"} | (
                {"stream"} if family.encoders[0].kind == "pipeline" else set()
            )
            known = layer.removeprefix("unet.") in row or reader.reads in unsaid
            assert known, f"{family.name}: {layer}"
