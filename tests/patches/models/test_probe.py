"""The probe: it finds by itself what the table of families says, and what nobody has told it."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
from support.commandline import rasura
from support.models.tiny_families import NAMES, dual_attention, tiny_family
from torch import nn

import rasura as package
from rasura.patches.errors import NotFoundError, UnsupportedHostError
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.models.base_identity import find_cross_attention
from rasura.patches.models.families import find_family
from rasura.patches.models.probe.agreement import check_agreement, find_disagreements, probe_model
from rasura.patches.models.probe.probe import probe_config, probe_live
from rasura.patches.types import ParamName


@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_the_table_is_found_by_running_the_model(name: str) -> None:
    family = tiny_family(name)
    infos = TorchHost(family.components, name).parameters()
    row = find_family(infos)
    assert row is not None
    part = next(part for part in ("unet", "transformer") if part in family.components)
    trace = probe_live(family.components[part])
    assert find_disagreements(trace, row, infos) == []
    assert {name for name in infos if (layer := trace.layer(name)) and layer in trace.entrances} == {
        name for name in infos if row.reads(name) in {"text", "normed", "projected"}
    }


def test_a_table_that_says_otherwise_is_refused() -> None:
    family = tiny_family("FLUX")
    infos = TorchHost(family.components, "FLUX").parameters()
    row = find_family(infos)
    assert row is not None
    with pytest.raises(UnsupportedHostError, match=r"FLUX family reads text otherwise: transformer\.caption"):
        check_agreement(probe_live(tiny_family("PixArt").components["transformer"]), row, {**infos, **_pixart_infos()})


def _pixart_infos() -> dict[ParamName, Any]:
    return dict(TorchHost(tiny_family("PixArt").components, "PixArt").parameters())


def test_what_looks_like_cross_attention_is_told_from_it() -> None:
    trace = probe_live(dual_attention())
    said = {layer.pattern: layer.reads for layer in trace.lookalikes}
    assert said["transformer.transformer_blocks.*.attn2.to_k"] in {"picture", "stream"}
    assert said["transformer.transformer_blocks.*.attn.add_k_proj"] == "stream"
    assert said["transformer.time_text_embed.text_embedder.linear_1"] == "pooled"
    assert [layer.pattern for layer in trace.entrances] == ["transformer.context_embedder"]


def _projected(**options: Any) -> dict[str, Any]:
    return {
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "num_layers": 2,
        "caption_channels": 24,
        "cross_attention_dim": 16,
        **options,
    }


UNKNOWN = {
    "SanaTransformer2DModel": (
        _projected(in_channels=4, out_channels=4, num_cross_attention_heads=2, cross_attention_head_dim=8),
        ("caption_projection", "caption_norm"),
    ),
    "LTXVideoTransformer3DModel": (_projected(in_channels=4, out_channels=4), ("caption_projection",)),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_projected_text_comes_with_the_modules_that_it_goes_through(kind: str) -> None:
    config, through = UNKNOWN[kind]
    trace = probe_config("transformer", kind, config)
    layer = trace.layer("transformer.transformer_blocks.1.attn2.to_v.weight")
    assert layer is not None
    assert (layer.reads, layer.through) == ("projected", tuple(f"transformer.{name}" for name in through))
    first = trace.layer("transformer.caption_projection.linear_1.weight")
    assert first is not None
    assert (first.reads, first.width) == ("text", 24)


def test_norms_and_attention_among_the_words_are_told_apart() -> None:
    config = {
        "all_patch_size": [2],
        "all_f_patch_size": [1],
        "in_channels": 4,
        "dim": 32,
        "n_layers": 1,
        "n_refiner_layers": 2,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": 24,
        "axes_dims": [4, 6, 6],
        "axes_lens": [64, 32, 32],
    }
    trace = probe_config("transformer", "ZImageTransformer2DModel", config)
    said = {layer.pattern.removeprefix("transformer."): layer for layer in trace.alone}
    assert said["cap_embedder.1"].reads == "normed"
    assert said["cap_embedder.1"].through == ("transformer.cap_embedder.0",)
    assert said["context_refiner.*.feed_forward.w1"].reads == "refined"
    assert said["context_refiner.*.attention.to_k"].reads == "refined"  # of the second block at the latest
    assert not any(layer.reads == "refined" for layer in trace.entrances)


@pytest.mark.parametrize(
    ("kind", "full"),
    [
        (
            "PixArtTransformer2DModel",
            {"sample_size": 128, "caption_channels": 4096, "num_layers": 28, "num_attention_heads": 16}
            | {"attention_head_dim": 72, "cross_attention_dim": 1152},
        ),
        ("Flux2Transformer2DModel", {"num_layers": 8, "num_single_layers": 48, "num_attention_heads": 48}
            | {"attention_head_dim": 128, "joint_attention_dim": 15360, "axes_dims_rope": [32] * 4}),
    ],
)  # fmt: skip
def test_a_published_size_is_probed_by_a_twin_that_says_what_was_made_smaller(kind: str, full: dict[str, Any]) -> None:
    trace = probe_config("transformer", kind, full)
    assert "num_attention_heads 2 of" in trace.how
    assert trace.entrances[0].width in {4096, 15360}  # the width of the text stays


def test_latte_and_allegro_are_not_called_pixart() -> None:
    wide = {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1, "caption_channels": 16}
    latte = diffusers.LatteTransformer3DModel(
        in_channels=4, out_channels=8, patch_size=2, sample_size=8, cross_attention_dim=24, activation_fn="gelu",
        norm_type="ada_norm_single", num_embeds_ada_norm=1000, norm_elementwise_affine=False, video_length=1, **wide,
    )  # fmt: skip
    allegro = diffusers.AllegroTransformer3DModel(
        sample_height=8, sample_width=8, sample_frames=1, cross_attention_dim=24, **wide
    )
    for module in (latte, allegro):
        assert find_family(TorchHost({"transformer": module}, "film").parameters()) is None
        assert any(layer.reads == "text" for layer in probe_live(module).entrances)


@pytest.mark.parametrize("kind", ["NoSuchTransformer", "AutoencoderKL"])
def test_what_cannot_be_probed_is_refused_with_what_was_seen(kind: str) -> None:
    with pytest.raises(UnsupportedHostError, match=r"none of this name|its forward takes nothing"):
        probe_config("transformer", kind, {})


def test_folders_without_a_denoiser_and_other_objects(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"transformer/config\.json"):
        package.probe(tmp_path)
    with pytest.raises(UnsupportedHostError, match="got Linear"):
        package.probe(nn.Linear(2, 2))


def test_the_command_prints_sixty_columns_and_json(tmp_path: Path) -> None:
    folder = tiny_family("PixArt").save(tmp_path / "model")
    run = rasura("probe", folder, cwd=tmp_path)
    assert run.code == 0, run.err
    assert max(map(len, run.out.splitlines())) <= 60
    assert "family  PixArt" in run.out
    told = rasura("probe", folder, "--json", cwd=tmp_path).data
    assert (told["class"], told["family"]) == ("PixArtTransformer2DModel", "PixArt")
    trace, family = probe_model(folder)
    assert (told["trace"], told["family"]) == (trace.digest, family)
    assert package.probe(tiny_family("PixArt").components["transformer"]).layers == trace.layers


def test_motion_modules_of_animatediff_read_frames() -> None:
    """Their `attn2` is called like cross-attention; where widths coincide, a patch would be written there in silence."""
    unet = diffusers.UNetMotionModel(
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, num_attention_heads=2,
        cross_attention_dim=8, motion_num_attention_heads=2, sample_size=8,
        down_block_types=("DownBlockMotion", "CrossAttnDownBlockMotion"),
        up_block_types=("CrossAttnUpBlockMotion", "UpBlockMotion"),
    )  # fmt: skip
    infos = TorchHost({"unet": unet}, "film").parameters()
    row, trace = find_family(infos), probe_live(unet)
    assert row is not None
    assert row.name == "SD 1.x"
    frames = [name for name in infos if ".motion_modules." in name and ".attn2.to_k." in name]
    assert frames
    assert {trace.layer(name).reads for name in frames if trace.layer(name)} == {"stream"}  # type: ignore[union-attr]
    for layers in ("k", "kv", "text"):
        assert not {*find_cross_attention(infos, layers, 8)} & {*frames}
    assert find_disagreements(trace, row, infos) == []
