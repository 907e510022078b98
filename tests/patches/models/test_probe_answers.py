"""What the probe must say of every family that rasura knows, written down here layer by layer and not read from its table.

`_KNOWN` is what diffusers' classes do: whoever reads their `forward` finds the same. `test_probe.py` and
`tests/cli/families/test_more_families.py` hold the probe against the table of families, which could be wrong with it.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diffusers
import pytest
from support.models import tiny_families, tiny_pipelines

from rasura.patches.errors import UnsupportedHostError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.models.families import FAMILIES
from rasura.patches.models.probe.agreement import explain_separable, probe_model
from rasura.patches.models.probe.probe import probe_folder, probe_live
from rasura.patches.models.probe.trace import Trace


@dataclass(frozen=True, slots=True)
class _Known:
    """A family's answer.

    Attributes:
        entrances: layers by their last names: what they read, then the modules that the text went through before.
        alike: what is called like them and does not read tokens alone, with what it reads.
        stacked: how many layers of its language model a pipeline puts side by side in a row.
        refined: whether words are mixed by attention behind the entrance, before the picture is seen.
    """

    entrances: Mapping[str, tuple[str, ...]]
    alike: Mapping[str, str]
    stacked: int = 1
    refined: bool = False


def _attention(*read: str) -> dict[str, tuple[str, ...]]:
    return {"attn2.to_k": read, "attn2.to_v": read}


def _projection(name: str, behind: str = "act_1") -> dict[str, tuple[str, ...]]:
    """A network of two layers: the first reads the text, the second what the first made of it."""
    return {
        f"{name}.linear_1": ("text",),
        f"{name}.linear_2": ("projected", f"{name}.linear_1", f"{name}.{behind}"),
    }


_STREAMS: Final = {"attn.add_k_proj": "stream", "attn.add_v_proj": "stream"}
_POOLED: Final = {f"time_text_embed.text_embedder.linear_{i}": "pooled" for i in (1, 2)}
_PIXART: Final = _projection("caption_projection") | _attention("projected", "caption_projection")
_WAN: Final = _projection("condition_embedder.text_embedder") | _attention(
    "projected", "condition_embedder.text_embedder"
)
_CONTEXT: Final = {"context_embedder": ("text",)}
_REFINER: Final = "context_embedder.token_refiner.refiner_blocks"

KNOWN: Final[Mapping[str, _Known]] = {
    "SD 1.x": _Known(_attention("text"), {}),
    "SD 2.x": _Known(_attention("text"), {}),
    "SDXL": _Known(_attention("text"), {f"add_embedding.linear_{i}": "pooled" for i in (1, 2)}),
    "SD3": _Known(_CONTEXT, _STREAMS | _POOLED),
    "FLUX": _Known(_CONTEXT, _STREAMS | _POOLED),
    "PixArt": _Known(_PIXART, {}),
    "Wan": _Known(_WAN, {}),
    "Wan 2.2": _Known(_WAN, {}),
    "LTX": _Known(_PIXART, {}),
    "AuraFlow": _Known(_CONTEXT, _STREAMS),
    "Chroma": _Known(_CONTEXT, _STREAMS),
    "Sana": _Known(
        _projection("caption_projection") | _attention("projected", "caption_projection", "caption_norm"), {}
    ),
    "Qwen-Image": _Known({"txt_in": ("normed", "txt_norm")}, _STREAMS),
    "Z-Image": _Known({"cap_embedder.1": ("normed", "cap_embedder.0")}, {}, refined=True),
    "FLUX.2": _Known(_CONTEXT, _STREAMS, stacked=3),
    "FLUX.2 klein": _Known(_CONTEXT, _STREAMS, stacked=3),
    "CogView4": _Known({"patch_embed.text_proj": ("text",)}, {}),
    "HunyuanVideo": _Known(
        {"context_embedder.proj_in": ("text",)},
        # Its refiner adds the time step to the words before they meet each other; what it pools is the mean of all.
        _STREAMS
        | _POOLED
        | {f"{_REFINER}.*.{layer}": "stream" for layer in ("attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.*")}
        | {f"{_REFINER}.*.{layer}": "stream" for layer in ("ff.net.*", "ff.net.*.proj", "norm_out.linear")},
        refined=True,
    ),
    "Cosmos": _Known(_attention("text"), {}),
    "Cosmos 2.5": _Known({"crossattn_proj.0": ("text",)} | _attention("projected", "crossattn_proj"), {}, stacked=3),
    "Lumina 2": _Known(
        {"time_caption_embed.caption_embedder.1": ("normed", "time_caption_embed.caption_embedder.0")},
        {},
        refined=True,
    ),
    "Qwen-Image 2.1": _Known(
        {
            "txt_in.in_layer": ("normed", "txt_in.text_norm"),
            "txt_in.out_layer": ("projected", "txt_in.text_norm", "txt_in.in_layer", "txt_in.act"),
        },
        {},
    ),
    "Krea 2": _Known({"txt_in.linear_1": ("fused", "text_fusion", "txt_in.norm")}, {}, refined=True),
    "ERNIE-Image": _Known({"text_proj": ("text",)}, {}),
    "HiDream": _Known(
        {f"caption_projection.{i}.linear": ("text",) for i in range(4)},
        {f"p_embedder.pooled_embedder.linear_{i}": "pooled" for i in (1, 2)},
    ),
    "Kolors": _Known(
        {"encoder_hid_proj": ("text",)} | _attention("projected", "encoder_hid_proj"),
        {f"add_embedding.linear_{i}": "pooled" for i in (1, 2)},
    ),
}


def test_every_family_has_its_answer() -> None:
    assert {family.name for family in FAMILIES} == KNOWN.keys()
    assert KNOWN.keys() == {*tiny_families.NAMES, *tiny_pipelines.NAMES}


@pytest.mark.parametrize("name", tiny_families.NAMES)
def test_the_probe_says_what_is_known_of_a_family_that_reads_its_encoders_states(name: str) -> None:
    parts = tiny_families.tiny_family(name).components
    trace = probe_live(parts["unet" if "unet" in parts else "transformer"])
    _compare(trace, KNOWN[name])


@pytest.mark.parametrize("name", tiny_pipelines.NAMES)
def test_the_probe_says_what_is_known_of_a_family_whose_pipeline_reads(name: str, tmp_path: Path) -> None:
    model = tiny_pipelines.tiny_of(tmp_path / "model", name)
    trace = probe_folder(model)
    _compare(trace, KNOWN[name])
    family = next(family for family in FAMILIES if family.name == name)
    widths = set()
    for encoder in (*family.sequence[0], *family.beside):
        config = json.loads((model / encoder.component / "config.json").read_text())
        text = config.get("text_config", config)
        widths.add(KNOWN[name].stacked * (text.get("hidden_size") or text["d_model"]))
    first = [layer.width for layer in trace.entrances if layer.reads != "projected"]
    assert set(first) == widths


@pytest.mark.parametrize("name", tiny_pipelines.NAMES)
def test_a_family_is_told_without_weights(name: str, tmp_path: Path) -> None:
    """Of the denoisers' configurations alone, and beside weights in another format, which are never opened."""
    whole = tiny_pipelines.tiny_of(tmp_path / "whole", name)
    for config in [*whole.glob("transformer*/config.json"), *whole.glob("unet/config.json")]:
        place = tmp_path / "bare" / config.parent.name
        place.mkdir(parents=True)
        shutil.copy(config, place)
        (place / "diffusion_pytorch_model.bin").write_bytes(b"PK\x03\x04")
    assert probe_model(tmp_path / "bare") == probe_model(whole)
    assert probe_model(whole)[1] == name


@pytest.mark.parametrize("name", tiny_families.NAMES)
def test_the_older_families_are_told_without_weights(name: str, tmp_path: Path) -> None:
    parts = tiny_families.tiny_family(name).components
    component = "unet" if "unet" in parts else "transformer"
    module: Any = parts[component]
    module.save_config(tmp_path / component)
    assert probe_model(tmp_path)[1] == name


def test_hunyuan_image_is_not_called_by_the_name_of_its_films(tmp_path: Path) -> None:
    """Its layers have the names of HunyuanVideo's; what its pipeline reads with is other."""
    transformer = diffusers.HunyuanImageTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, patch_size=(1, 1), text_embed_dim=32, rope_axes_dim=(8, 8),
    )  # fmt: skip
    transformer.save_config(tmp_path / "transformer")
    trace, family = probe_model(tmp_path)
    assert family == ""
    assert "transformer.context_embedder.proj_in" in {layer.pattern for layer in trace.entrances}


def test_a_configuration_of_which_nothing_can_be_built_is_refused(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text('{"_class_name": "LatteTransformer3DModel"}')
    with pytest.raises(UnsupportedHostError, match="nothing can be built of its configuration: TypeError"):
        probe_model(tmp_path)


def test_a_class_that_calls_its_layers_like_another_is_of_no_family(tmp_path: Path) -> None:
    """CogView3 Plus has the names of CogView4's layers and reads with T5, not with GLM."""
    model = tiny_pipelines.tiny_of(tmp_path / "model", "CogView4")
    infos = CheckpointHost.open(model).parameters()
    transformer = diffusers.CogView3PlusTransformer2DModel(
        in_channels=4, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2, text_embed_dim=64,
        time_embed_dim=8, condition_dim=4, sample_size=8,
    )  # fmt: skip
    transformer.save_config(model / "transformer")
    assert probe_model(model)[1] == ""
    with pytest.raises(UnsupportedHostError, match=r"expected a CogView4Transformer2DModel.*got a CogView3Plus"):
        explain_separable(model, infos)


def test_pickled_text_encoders_are_none_of_the_probes_business(tmp_path: Path) -> None:
    model = tiny_pipelines.tiny_of(tmp_path / "model", "Chroma")
    (weights,) = (model / "text_encoder").glob("*.safetensors")
    weights.rename(weights.with_name("pytorch_model.bin"))
    assert probe_model(model)[1] == "Chroma"


def _compare(trace: Trace, known: _Known) -> None:
    seen = {
        _last(layer.pattern): (layer.reads, *(name.partition(".")[2] for name in layer.through))
        for layer in trace.entrances
    }
    assert seen == dict(known.entrances)
    assert {_last(layer.pattern, keep=_REFINER): layer.reads for layer in trace.lookalikes} == dict(known.alike)
    assert any(layer.reads == "refined" for layer in trace.alone) is known.refined


def _last(pattern: str, keep: str = "") -> str:
    """A layer's name without those of its component and of the blocks that it stands in."""
    inside = pattern.partition(".")[2]
    return inside if keep and inside.startswith(keep) else inside.rpartition("blocks.*.")[2]
