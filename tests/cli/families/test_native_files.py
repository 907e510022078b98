"""Single files and LoRA files in the names of a transformer's authors: what a person with ComfyUI has and wants.

A patch that was made on a diffusers folder is applied to the one file of the same weights and taken out again, bit for
bit, and exported as LoRA files, which stock diffusers reads to the same weights where it reads them at all; what was
seen is the table of docs/hosts.md.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.commandline import Run, rasura
from support.full import some
from support.models.family_records import SPELLINGS as RECORD
from support.models.family_records import keep_or_compare
from support.models.native_files import native_file, transformer_of
from support.models.tiny_pipelines import open_tiny, tiny_of
from support.models.tiny_t5 import NAMES as T5_NAMES
from support.models.tiny_t5 import tiny_t5, tiny_t5_pipeline
from support.registries.workshop import digests

from rasura.patches.errors import UnsupportedHostError
from rasura.patches.foreign.changes import find_changes
from rasura.patches.foreign.open_foreign import open_foreign
from rasura.patches.format.spellings.catalogue import SPELLINGS
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.types import ParamName
from rasura.registry.hub.card.describe import Describer, encode_beside
from rasura.registry.registry import Registry
from rasura.registry.trust.verified_patch import load_verified

ERASE = ["erase", "--base", "it", "--concept", "dog", "--anchor", "cat", "--retain", "retain.txt", "--tokens", "last"]
ERASE += ["--held-out", "held-out.txt", "--template", "a photo of {}", "--set", "ridge=1e-6", "--set", "energy=1"]
ALL = [
    *((name, "text") for name in SPELLINGS),
    *((name, "kv") for name in ("Wan", "Wan 2.2", "LTX", "Sana", "PixArt", "Cosmos 2.5")),
]
CASES = some([("FLUX", "text"), ("Z-Image", "text"), ("Wan", "kv"), ("Sana", "kv"), ("Wan 2.2", "text")], ALL)
# Diffusers' converters know the published models' widths alone, or there is none.
NOT_BY_DIFFUSERS = ("FLUX", "Chroma", "HunyuanVideo", "Lumina 2", "PixArt", "Qwen-Image")
COMFYUI = "model.diffusion_model."  # which these converters do not take away
NOT_BEHIND_COMFYUI = ("FLUX.2", "FLUX.2 klein", "AuraFlow", "Cosmos", "Cosmos 2.5")


class Shop:
    """A registry with one model of a family and one patch of it."""

    def __init__(self, folder: Path, family: str, layers: str) -> None:
        self.folder, self.family = folder, family
        self.model = self.fresh("model")
        (folder / "retain.txt").write_text("photo\ntree\nhouse")
        (folder / "held-out.txt").write_text("river\n")
        for words in (("init",), ("key", "new", "alice"), ("base", "add", "model", "--name", "it")):
            self.typed(*words)
        self.typed(*ERASE, "--layers", layers)
        with Registry.open(folder) as registry:
            (record,) = registry.patches()
        self.patch = record.patch_id

    def fresh(self, name: str) -> Path:
        return (tiny_t5 if self.family in T5_NAMES else tiny_of)(self.folder / name, self.family)

    def pipeline(self) -> Any:
        return tiny_t5_pipeline(self.model, self.family) if self.family in T5_NAMES else open_tiny(self.model)

    def typed(self, *arguments: str | Path, code: int = 0) -> Run:
        run = rasura(*arguments, cwd=self.folder)
        assert run.code == code, run.out + run.err
        return run


@pytest.mark.parametrize(("family", "layers"), CASES)
def test_one_file_and_lora_files_in_native_names(family: str, layers: str, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="diffusers loads LoRA files with peft")
    shop = Shop(tmp_path, family, layers)
    seen = {"family": family, "layers": layers}
    if family == "Wan 2.2":
        seen["file"] = _of_two_denoisers(shop)
    else:
        seen["file"] = _one_file(shop)
    delta, files = _increments(shop), _exported(shop)
    names = {style: sorted(load_file(file)) for style, file in files.items()}
    assert all(key.startswith("diffusion_model.") for key in names["native"])
    assert all(key.startswith("lora_unet_") for key in names["kohya"])
    seen["module"] = names["native"][0].removeprefix("diffusion_model.").removesuffix(".lora_A.weight")
    for style, file in files.items():
        _check_product(family, load_file(file), style, delta)
        again = open_foreign(file, CheckpointHost.open(shop.model).parameters()).tensors
        assert again.keys() == {f"transformer.{module}.weight" for module in delta}
        assert all(torch.equal(again[ParamName(f"transformer.{m}.weight")].value(), delta[m]) for m in delta)
        seen[style] = _read_by_diffusers(shop.pipeline(), file, delta)
    keep_or_compare(seen, RECORD)


def _one_file(shop: Shop) -> str:
    """Applied to and taken out of the one file, with and without what ComfyUI puts before names."""
    first = digests(shop.model)
    done = shop.typed("patch", "apply", shop.patch, "--model", "model", "--json").data
    patched = transformer_of(shop.model)
    shop.typed("patch", "revert", shop.patch, "--model", "model")
    assert digests(shop.model) == first
    for prefix in SPELLINGS[shop.family].prefixes:
        place = shop.folder / f"files{prefix}"
        place.mkdir()
        file = native_file(shop.model, place / "a file.safetensors", shop.family, prefix=prefix)
        before = file.read_bytes()
        assert shop.typed("patch", "apply", shop.patch, "--model", file, "--json").data["after"] == done["after"]
        assert native_file_of(patched, shop, prefix) == load_bytes(file)
        assert shop.typed("patch", "status", "--model", file, "--deep", "--json").data["drifted"] == []
        if shop.family not in (*NOT_BY_DIFFUSERS, *(NOT_BEHIND_COMFYUI if prefix == COMFYUI else ())):
            _loaded_by_diffusers(shop, file, patched)
        shop.typed("patch", "revert", shop.patch, "--model", file)
        assert file.read_bytes() == before
        assert [each.name for each in place.iterdir()] == [file.name]
    return "bit for bit"


def native_file_of(patched: Mapping[str, torch.Tensor], shop: Shop, prefix: str) -> dict[str, bytes]:
    """The patched folder's tensors, as the file must have them."""
    folder = shop.folder / f"patched{prefix}"
    (folder / "transformer").mkdir(parents=True)
    save_file(dict(patched), folder / "transformer/x.safetensors")
    return load_bytes(native_file(folder, folder / "x.safetensors", shop.family, prefix=prefix))


def load_bytes(file: Path) -> dict[str, bytes]:
    return {key: tensor.numpy().tobytes() for key, tensor in load_file(file).items()}


def _loaded_by_diffusers(shop: Shop, file: Path, patched: Mapping[str, torch.Tensor]) -> None:
    """What `from_single_file` makes of the patched file is the patched folder's."""
    kind = type(shop.pipeline().transformer)
    tensors = load_file(file)
    if shop.family == "Sana":  # which throws these away, and asks for them
        tensors |= {"pos_embed": torch.zeros(1), "y_embedder.y_embedding": torch.zeros(1)}
    loaded = kind.from_single_file(tensors, config=str(shop.model / "transformer"), local_files_only=True).state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in patched.items())


def _of_two_denoisers(shop: Shop) -> str:
    """A file is of one of them, and a patch is of both."""
    file = native_file(shop.model, shop.folder / "high_noise.safetensors", shop.family)
    before = file.read_bytes()
    refused = shop.typed("patch", "apply", shop.patch, "--model", file, "--json", code=5)
    assert "is one denoiser: expected a pipeline with both" in refused.envelope["error"]["message"]
    assert file.read_bytes() == before
    error = shop.typed(
        "patch", "export", shop.patch, "-o", "x.safetensors", "--format", "native", "--json", code=1
    ).envelope["error"]
    assert "of another denoiser, for which programs load a file of its own" in error["message"]
    assert error["hint"].endswith("--format native --each")
    return "refused: of two denoisers"


def _exported(shop: Shop) -> dict[str, Path]:
    """The LoRA files, of two denoisers those of the first; and the second's are its own."""
    found: dict[str, Path] = {}
    for style in ("native", "kohya"):
        if shop.family == "Wan 2.2":
            done = shop.typed("patch", "export", shop.patch, "-o", style, "--format", style, "--each", "--json").data
            folder = shop.folder / done["files"][shop.patch]
            assert sorted(file.name for file in folder.iterdir()) == ["high_noise.safetensors", "low_noise.safetensors"]
            both = [load_file(folder / f"{noise}_noise.safetensors") for noise in ("high", "low")]
            assert both[0].keys() == both[1].keys()
            assert any(not torch.equal(both[0][key], both[1][key]) for key in both[0])
            found[style] = folder / "high_noise.safetensors"
        else:
            found[style] = shop.folder / f"{style}.safetensors"
            shop.typed("patch", "export", shop.patch, "-o", found[style].name, "--format", style)
    return found


def _increments(shop: Shop) -> dict[str, torch.Tensor]:
    """What the patch adds to the (first) denoiser, by module."""
    with Registry.open(shop.folder) as registry:
        increments = load_verified(registry, shop.patch).tensors.increments
    return {
        name.removeprefix("transformer.").removesuffix(".weight"): increment.dense()
        for name, increment in increments.items()
        if name.startswith("transformer.")
    }


def _check_product(
    family: str, file: Mapping[str, torch.Tensor], style: str, delta: Mapping[str, torch.Tensor]
) -> None:
    """Up times down is the increment, exactly, in the rows that the native matrix has for it."""
    spelling = SPELLINGS[family]
    down, up = ("lora_A.weight", "lora_B.weight") if style == "native" else ("lora_down.weight", "lora_up.weight")
    for module, wanted in delta.items():
        native = spelling.write(f"{module}.weight") or spelling.holder(f"{module}.weight")
        assert native is not None
        stem = native.removesuffix(".weight")
        key = f"diffusion_model.{stem}" if style == "native" else f"lora_unet_{stem.replace('.', '_')}"
        ours = spelling.read(native)
        product = file[f"{key}.{up}"].double() @ file[f"{key}.{down}"].double()
        assert torch.equal(product.chunk(len(ours))[ours.index(f"{module}.weight")], wanted)
        assert style == "native" or float(file[f"{key}.alpha"]) == file[f"{key}.{down}"].shape[0]


def _read_by_diffusers(pipeline: Any, file: Path, delta: Mapping[str, torch.Tensor]) -> str:
    """Whether `load_lora_weights` makes of a file what the patch is, in the table's words."""
    if not hasattr(pipeline, "load_lora_weights"):
        return "no loader"
    try:
        pipeline.load_lora_weights(file)
    except (ValueError, KeyError, IndexError):
        return "an error"
    modules = [pipeline.transformer.get_submodule(module) for module in delta]
    if not any(hasattr(module, "base_layer") for module in modules):
        return "passed over"
    for module, wanted in zip(modules, delta.values(), strict=True):
        found = module.get_delta_weight("default_0").double()
        assert torch.allclose(found, wanted, atol=1e-5 * float(wanted.abs().max()))
    return "equal"


def model_of(folder: Path, family: str) -> Path:
    return (tiny_t5 if family in T5_NAMES else tiny_of)(folder / "model", family)


def test_an_erasure_in_a_native_file_is_found_and_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    """As somebody publishes it: a whole transformer, of which one layer is another."""
    host = CheckpointHost.open(model_of(tmp_path, "Z-Image"))
    layer = ParamName("transformer.cap_embedder.1.weight")
    file = native_file(host.path, tmp_path / "erased.safetensors", "Z-Image", prefix=COMFYUI)
    tensors = {key: tensor.clone() for key, tensor in load_file(file).items()}
    tensors[f"{COMFYUI}cap_embedder.1.weight"] *= 2
    save_file(tensors, file)
    (change,) = find_changes(host, open_foreign(file, host.parameters()), 1.0, lambda *_: None)
    assert change.size.name == layer
    assert torch.equal(change.delta, host.read([layer])[layer].double())

    flux = CheckpointHost.open(model_of(tmp_path / "flux", "FLUX"))
    file = native_file(flux.path, tmp_path / "flux.safetensors", "FLUX")
    with pytest.raises(
        UnsupportedHostError, match=r"got transformer\.\S+ in \S+, which holds it in parts of several sizes"
    ):
        open_foreign(file, flux.parameters())
    part = tmp_path / "txt_in.safetensors"  # as SPEED and UCE save what they touched
    save_file({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.ones(1, 32),
               "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": torch.arange(96.0)[:, None]}, part)  # fmt: skip
    found = open_foreign(part, flux.parameters()).tensors
    block = "transformer.transformer_blocks.0.attn.to_"
    assert {name: float(each.value()[0, 0]) for name, each in found.items()} == {
        f"{block}q.weight": 0.0,
        f"{block}k.weight": 32.0,
        f"{block}v.weight": 64.0,
    }


def test_an_all_in_one_file_is_asked_for_its_encoders_unless_they_are_coded(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "SD3", "text")
    pieces = {"clip_l": "text_encoder", "clip_g": "text_encoder_2", "t5xxl": "text_encoder_3"}
    more = {
        f"text_encoders.{name}.transformer.{key}": tensor
        for name, component in pieces.items()
        for key, tensor in transformer_of(shop.model, component).items()
    }
    file = native_file(shop.model, tmp_path / "all.safetensors", "SD3", prefix=COMFYUI, more=more)
    before = file.read_bytes()
    known = {name.partition(".")[0] for name in CheckpointHost.open(file).parameters()}
    assert known == {"transformer", "text_encoder", "text_encoder_2", "text_encoder_3"}
    shop.typed("patch", "apply", shop.patch, "--model", file)
    shop.typed("patch", "revert", shop.patch, "--model", file)
    assert file.read_bytes() == before

    key = next(key for key in more if "t5xxl" in key and key.endswith("SelfAttention.q.weight"))
    native_file(shop.model, file, "SD3", prefix=COMFYUI, more={**more, key: more[key] * 2})
    error = shop.typed("patch", "apply", shop.patch, "--model", file, "--json", code=5).envelope["error"]
    assert "text_encoder_3" in error["message"]
    small = {**more, key: more[key].to(torch.float8_e4m3fn)}
    native_file(shop.model, file, "SD3", prefix=COMFYUI, more=small)
    assert not any(name.startswith("text_encoder_3.") for name in CheckpointHost.open(file).parameters())
    shop.typed("patch", "apply", shop.patch, "--model", file)


def test_native_files_that_cannot_be_patched_say_why(tmp_path: Path) -> None:
    model = model_of(tmp_path, "FLUX")
    file = native_file(model, tmp_path / "flux.safetensors", "FLUX")
    tensors = load_file(file)
    coded = {key: t.to(torch.float8_e4m3fn) if t.dim() > 1 else t for key, t in tensors.items()}
    save_file(coded, tmp_path / "fp8.safetensors")
    with pytest.raises(UnsupportedHostError, match="as F8_E4M3, into which nothing is merged"):
        CheckpointHost.open(tmp_path / "fp8.safetensors")
    averaged = {key: tensor for key, tensor in tensors.items() if "vector_in" not in key}
    save_file(averaged, tmp_path / "odd.safetensors")
    with pytest.raises(UnsupportedHostError, match=r"in the native names of FLUX, FLUX\.2, "):
        CheckpointHost.open(tmp_path / "odd.safetensors")
    inside = tiny_of(tmp_path / "qwen", "Qwen-Image")  # whose authors' names are diffusers'
    (weights,) = (inside / "transformer").glob("*.safetensors")
    with pytest.raises(UnsupportedHostError, match="got a single file") as caught:
        CheckpointHost.open(weights)
    assert caught.value.hint == f"--model {inside}"
    with pytest.raises(UnsupportedHostError, match="got a single file"):
        CheckpointHost.open(next((model_of(tmp_path / "cog", "CogView4") / "transformer").glob("*.safetensors")))


def test_a_family_without_native_names_is_not_exported_in_them(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "CogView4", "text")
    for style in ("native", "kohya"):
        refused = shop.typed(
            "patch", "export", shop.patch, "-o", "x.safetensors", "--format", style, "--json", code=1
        ).envelope["error"]
        assert refused["code"] == "unsupported_host"
        assert "the native names of its family are not known, or there are none" in refused["message"]
        assert "--format peft" in refused["hint"]


def test_a_finetune_that_is_one_file_becomes_a_base_through_diffusers(tmp_path: Path) -> None:
    """The way that `base add FILE` names, and a patch of what came of it fits the file."""
    model = model_of(tmp_path, "Z-Image")
    file = native_file(model, tmp_path / "finetune.safetensors", "Z-Image")
    tensors = {key: tensor.clone() for key, tensor in load_file(file).items()}
    tensors["cap_embedder.1.weight"] += 0.01
    save_file(tensors, file)
    before = file.read_bytes()
    (tmp_path / "retain.txt").write_text("photo\ntree")
    (tmp_path / "held-out.txt").write_text("river\n")
    for words in (("init",), ("key", "new", "alice")):
        assert rasura(*words, cwd=tmp_path).code == 0
    refused = rasura("base", "add", file, "--json", cwd=tmp_path).envelope["error"]
    assert "whose tokenizer and text encoder can be loaded, got a single file" in refused["message"]
    assert "save_pretrained(DIR/transformer)" in refused["hint"]
    kind = diffusers.ZImageTransformer2DModel
    denoiser = kind.from_single_file(str(file), config=str(model / "transformer"), local_files_only=True)
    denoiser.save_pretrained(model / "transformer")
    assert rasura("base", "add", "model", "--name", "it", cwd=tmp_path).code == 0
    assert rasura(*ERASE, "--layers", "text", cwd=tmp_path).code == 0
    with Registry.open(tmp_path) as registry:
        (record,) = registry.patches()
    assert rasura("patch", "apply", record.patch_id, "--model", file, cwd=tmp_path).code == 0
    assert file.read_bytes() != before
    assert rasura("patch", "revert", record.patch_id, "--model", file, cwd=tmp_path).code == 0
    assert file.read_bytes() == before


def test_probing_a_file_tells_its_family_and_where_text_enters_it(tmp_path: Path) -> None:
    for family, layer in (("Wan", "text_embedding.0"), ("FLUX", "txt_in"), ("Sana", "y_embedder.y_proj.fc1")):
        file = native_file(model_of(tmp_path / family, family), tmp_path / f"{family}.safetensors", family)
        run = rasura("probe", file, cwd=tmp_path)
        assert run.code == 0, run.err
        assert f"family  {family}" in run.out
        assert layer in run.out
        data = rasura("probe", file, "--json", cwd=tmp_path).data
        assert data["family"] == family
        assert data["native"][0]["native"] == f"{layer}.weight"


def test_a_lora_in_either_spelling_is_adopted_as_one_patch(tmp_path: Path) -> None:
    """Of a family whose text enters by no cross-attention."""
    shop = Shop(tmp_path, "FLUX", "text")
    made = set()
    for style in ("native", "kohya"):
        shop.typed("patch", "export", shop.patch, "-o", f"{style}.safetensors", "--format", style)
        adopt = ["adopt", f"{style}.safetensors", "--base", "it", "--concept", "dog", "--anchor", "cat"]
        adopt += [
            "--retain",
            "retain.txt",
            "--held-out",
            "held-out.txt",
            "--template",
            "a photo of {}",
            "--tokens",
            "last",
            "--rank-rule",
            "relative:0.01",
            "--json",
        ]
        made.add(shop.typed(*adopt).data["id"])
    (patch,) = made
    assert patch != shop.patch
    touched = shop.typed("patch", "show", patch, "--json").data["manifest"]["base"]["parameters"]
    assert [parameter["name"] for parameter in touched] == ["transformer.context_embedder.weight"]


def test_a_pushed_patch_has_a_file_beside_it_where_comfyui_needs_native_names(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "LTX", "text")
    with Registry.open(tmp_path) as registry:
        describe, patch = Describer.of(registry, None), load_verified(registry, shop.patch)
        facts = describe.patch(patch.manifest)
        made = encode_beside(patch, describe.lora_names(facts.base))
    assert facts.comfyui == f"comfyui/dog-{shop.patch[:12]}.safetensors"
    assert made is not None
    shop.typed("patch", "export", shop.patch, "-o", "k.safetensors", "--format", "kohya")
    assert (tmp_path / "k.safetensors").read_bytes() == made
    assert "lora_unet_caption_projection_linear_1.alpha" in load_file(tmp_path / "k.safetensors")
