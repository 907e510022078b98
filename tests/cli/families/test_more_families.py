"""Every family: the whole promise on tiny models of the real classes; then those whose pipeline reads the prompt itself.

Base, probe, erase, check, apply and revert on disk and live bit for bit, steps of drawing, the exported LoRA; what was
seen are the tables of docs/hosts.md.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.commandline import rasura
from support.full import FULL, some
from support.models.family_records import keep_or_compare
from support.models.tiny_older import NAMES as OLDER_NAMES
from support.models.tiny_older import older_of
from support.models.tiny_pipelines import NAMES, draw, open_tiny, tiny_of
from support.registries.workshop import digests

import rasura as package
from rasura.patches._io.settings import get_settings, use
from rasura.patches.errors import InputError, UnsupportedHostError
from rasura.patches.format.trace_spec import TracedSpec
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.models.base_identity import find_cross_attention
from rasura.patches.models.families import find_family
from rasura.patches.models.probe.agreement import find_disagreements
from rasura.patches.models.probe.probe import probe_folder
from rasura.patches.models.probe.trace import Trace
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import Target, align_columns
from rasura.patches.types import ParamName
from rasura.registry.registry import Registry
from rasura.registry.trust.verified_patch import load_verified

WORDS = ("photo", "tree", "house")
PROJECTED = ("Wan", "Wan 2.2", "LTX", "Sana", "Cosmos 2.5", "Kolors")
_EXACT = ("--set", "ridge=1e-6", "--set", "energy=1")
OTHERS = ("speed", "uce")
CASES = [(name, "text") for name in NAMES] + some(
    [("LTX", "kv"), ("Wan 2.2", "kv")], [(name, "kv") for name in PROJECTED]
)
OLDER = some(
    [("SD 2.x", "kv"), ("SD3", "text"), ("PixArt", "kv")],
    [(name, "kv" if name in ("SD 1.x", "SD 2.x", "SDXL", "PixArt") else "text") for name in OLDER_NAMES]
    + [("PixArt", "text")],
)


@pytest.mark.parametrize(("name", "layers"), [*CASES, *OLDER])
def test_the_whole_promise(name: str, layers: str, tmp_path: Path) -> None:  # noqa: PLR0915  # one story
    typed = _Typed(tmp_path)
    make = older_of if name in OLDER_NAMES else tiny_of
    model = make(tmp_path / "model", name)
    files = digests(model)
    (tmp_path / "retain.txt").write_text("\n".join(WORDS))
    (tmp_path / "held-out.txt").write_text("river\n")
    typed("init")
    typed("key", "new", "alice")
    typed("base", "add", "model", "--name", "it")
    assert f"family  {name}" in typed("probe", "model")
    erase = ["erase", "--base", "it", "--concept", "dog", "--anchor", "cat", "--retain", "retain.txt"]
    erase += ["--template", "a photo of {}", "--layers", layers, "--tokens", "last"]
    erase += ["--held-out", "held-out.txt"]
    typed(*erase, "--method", "null-space", *_EXACT)
    others = OTHERS if FULL else OTHERS[[*CASES, *OLDER].index((name, layers)) % 2 :][:1]
    for method in others:
        typed(*erase, "--method", method)
    with Registry.open(tmp_path) as registry:
        made = {record.method: record.patch_id for record in registry.patches()}
        patch, told = load_verified(registry, made["null-space"]).manifest, _told(registry)
    assert set(made) == {"null-space", *others}

    host = CheckpointHost.open(model)
    touched = find_cross_attention(host.parameters(), layers)
    trace, named = probe_folder(model), patch.base.trace
    if name in OLDER_NAMES:  # whose layers the table answers for
        assert (told, named) == ({}, None)
    else:
        assert named is not None
        assert told == {"trace": named.sha256, "class": named.kind, "config": named.config}
        assert named.sha256 == trace.digest
    spaces, before = TextEncoder.pristine(host).reading_by_space(layers, touched), host.read(touched)
    encoder = spaces[0][1]
    assert [parameter.name for parameter in patch.base.parameters] == touched
    assert dict(patch.protected.spaces) == {n: space.name for space, _ in spaces[1:] for n in space.names}
    patched = _seen_there(trace, touched) if named is None else named.layers
    assert {layer.through for layer in patched} == {own.readout.names if own.readout else () for _, own in spaces}
    typed("patch", "check", patch.patch_id)
    typed("patch", "apply", patch.patch_id, "--model", "model")
    after = CheckpointHost.open(model).read(touched)
    columns: dict[ParamName, torch.Tensor] = {}
    for space, own in spaces:
        C1, C_star = align_columns(own, Target("dog", "cat"), ["a photo of {}"], "last")
        left, moved = _shares(own, C1, C_star, {n: before[n] for n in space.names}, after)
        assert left < 0.05
        # Filling that is read takes all of the tiny model's width; PixArt's is of 32 numbers behind its network.
        hidden = all(tower.kind.masked for tower in own.towers)
        assert moved < (0.1 if not hidden else 0.05 if name == "PixArt" else 0.02)
        columns |= dict.fromkeys(space.names, C1)

    pipeline = open_tiny(make(tmp_path / "fresh", name))
    live = TorchHost.of(pipeline)
    pristine = live.digests(live.parameters())
    drawn = draw(pipeline, "a photo of dog")
    handle = package.attach(pipeline, tmp_path)
    handle.apply([patch.patch_id])
    assert live.digests(touched) == CheckpointHost.open(model).digests(touched)
    assert not torch.equal(draw(pipeline, "a photo of dog"), drawn)
    handle.revert([patch.patch_id])
    assert live.digests(live.parameters()) == pristine
    assert torch.equal(draw(pipeline, "a photo of dog"), drawn)
    typed("patch", "revert", patch.patch_id, "--model", "model")
    assert digests(model) == files

    typed("patch", "export", patch.patch_id, "-o", "out")
    pytest.importorskip("peft", reason="diffusers loads LoRA files with peft")
    loaded = _loaded(pipeline, tmp_path / "out", columns, before, after)
    keep_or_compare(
        {
            "family": name,
            "layers": layers,
            "pipeline": type(pipeline).__name__,
            "denoiser": trace.kind,
            "encoder": _name_encoders(pipeline, [own for _, own in spaces]),
            "touched": [layer.to_json() for layer in patched],
            **({"alike": [[each.pattern, each.reads] for each in trace.lookalikes]} if named is None else {}),
            **_reading(encoder),
            "methods": sorted(made),
            "bits": ["disk", "live"],
            "lora": loaded,
            "draws": "steps",
        }
    )


def _name_encoders(pipeline: Any, read: list[TextEncoder]) -> str:
    """The classes of the encoders that the spaces are of; of one space the first of the pipeline's."""
    components = dict.fromkeys(own.towers[0].component for own in read) if len(read) > 1 else ["text_encoder"]
    return " and ".join(dict.fromkeys(type(getattr(pipeline, each)).__name__ for each in components))


def _seen_there(trace: Trace, touched: list[ParamName]) -> tuple[TracedSpec, ...]:
    """What a trace says of these layers, as a manifest would."""
    kept = [layer for layer in trace.entrances if any(layer is trace.layer(parameter) for parameter in touched)]
    return tuple(TracedSpec(layer.pattern, layer.reads, layer.input, layer.through) for layer in kept)


def _loaded(
    pipeline: Any,
    folder: Path,
    columns: Mapping[ParamName, torch.Tensor],
    before: Mapping[ParamName, torch.Tensor],
    after: Mapping[ParamName, torch.Tensor],
) -> str:
    """Whether stock diffusers makes the same of an exported patch as what was merged, in the table's words."""
    if not hasattr(pipeline, "load_lora_weights"):
        return "diffusers has no loader"
    pipeline.load_lora_weights(folder)
    first = [layer for layer in before if not layer.startswith("transformer_2.")]  # it passes over a second denoiser
    for layer in first[:4]:
        component, _, path = layer.removesuffix(".weight").partition(".")
        module, C1 = getattr(pipeline, component).get_submodule(path), columns[layer]
        with torch.no_grad():
            given = module(C1.T.float()) - module.base_layer(C1.T.float())
        wanted = ((after[layer].double() - before[layer].double()) @ C1).T
        assert torch.allclose(given.double(), wanted, atol=1e-3 * float(wanted.abs().max()))
    return "equal" if len(first) == len(before) else "equal, of `transformer` alone"


class _Typed:
    """Command lines typed in a folder; each must succeed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, *arguments: str | Path) -> str:
        run = rasura(*arguments, cwd=self._folder)
        assert run.code == 0, run.out + run.err
        return run.out + run.err


def _told(registry: Registry) -> dict[str, str | int]:
    """What the log says beside the base."""
    (entry,) = [entry for entry in registry.entries() if entry.action == "base.add"]
    return dict(entry.details)


def _shares(
    encoder: TextEncoder,
    C1: torch.Tensor,
    C_star: torch.Tensor,
    before: Mapping[ParamName, torch.Tensor],
    after: Mapping[ParamName, torch.Tensor],
) -> tuple[float, float]:
    """How much of what was asked is left, and how much of what is kept has moved, of all layers together."""
    kept = encoder.encode_all(["", *(f"a photo of {word}" for word in WORDS)]).flatten(0, 1).T
    asked = left = held = moved = 0.0
    for layer, old in before.items():
        W, new = old.double(), after[layer].double()
        asked += float((W @ (C1 - C_star)).square().sum())
        left += float((new @ C1 - W @ C_star).square().sum())
        held += float((W @ kept).square().sum())
        moved += float(((new - W) @ kept).square().sum())
    return (left / asked) ** 0.5, (moved / held) ** 0.5


def _reading(encoder: TextEncoder) -> dict[str, int | str | bool]:
    """Of how many positions, what fills them up, and whether words know what comes after them."""
    read = encoder.encode_all(["a photo of dog", "a photo of cat"])
    place = encoder.places("a photo of dog", "dog")[-1]  # SD3's CLIPs before it look back
    apart = (read[0] - read[1]).abs().sum(-1)
    first = int(read[0].abs().sum(-1).nonzero()[0])
    return {
        "positions": encoder.length,
        "filling": "hidden"
        if float(read[0, place.stop :].abs().sum()) == 0 and place.stop < encoder.length
        else "read",
        "ahead": bool(apart[first : place.subject.start].max() > 0),
    }


@pytest.mark.parametrize("name", some(["Sana", "Wan 2.2"], list(NAMES)))
def test_a_stack_follows_to_a_finetune_that_reads_alike(name: str, tmp_path: Path) -> None:
    """Its patches leave there what they left here, where the old ones as they are leave more."""
    typed = _Typed(tmp_path)
    model, finetune = tiny_of(tmp_path / "model", name), tiny_of(tmp_path / "finetune", name)
    family = find_family(CheckpointHost.open(model).parameters())
    assert family is not None
    before = tuple(f"{module.partition('.')[2]}." for module in family.through(entrances=True))
    for file in [*finetune.glob("transformer*/*.safetensors"), *finetune.glob("unet/*.safetensors")]:
        _finetune(file, before)
    files = digests(finetune)
    (tmp_path / "retain.txt").write_text("\n".join(WORDS))
    (tmp_path / "held-out.txt").write_text("river\n")
    for words in (("init",), ("key", "new", "alice"), ("base", "add", "model", "--name", "it")):
        typed(*words)
    erase = ["erase", "--base", "it", "--concept", "dog", "--anchor", "cat", "--retain", "retain.txt", *_EXACT]
    typed(*erase, "--held-out", "held-out.txt", "--template", "a photo of {}", "--layers", "text", "--tokens", "last")
    typed("stack", "create", "brand", "dog")
    told = rasura("stack", "retarget", "brand", "--base", "finetune", "--json", cwd=tmp_path).data
    assert told["reads_otherwise"] == ""
    (made,) = told["made"]
    assert float(made["measured"]["residual"]) < 0.01 < float(made["as_it_is"])
    assert set(told["drift"]) == set(find_cross_attention(CheckpointHost.open(model).parameters(), "text"))
    typed("patch", "switch", "brand-finetune", "--model", "finetune")
    assert digests(finetune) != files
    typed("patch", "revert", "--all", "--model", "finetune", "--yes")
    assert digests(finetune) == files


def test_a_finetune_whose_network_before_the_text_layer_differs_reads_otherwise(tmp_path: Path) -> None:
    """Krea 2's has attention over the prompt in it: what a retargeted patch looks at is what the finetune's gives."""
    typed = _Typed(tmp_path)
    tiny_of(tmp_path / "model", "Krea 2")
    for file in tiny_of(tmp_path / "finetune", "Krea 2").glob("transformer/*.safetensors"):
        _finetune(file, ())
    (tmp_path / "retain.txt").write_text("\n".join(WORDS))
    for words in (("init",), ("key", "new", "alice"), ("base", "add", "model", "--name", "it")):
        typed(*words)
    erase = ["erase", "--base", "it", "--concept", "dog", "--anchor", "cat", "--retain", "retain.txt", *_EXACT]
    typed(*erase, "--template", "a photo of {}", "--layers", "text", "--tokens", "last")
    typed("stack", "create", "brand", "dog")
    refused = rasura("patch", "apply", "brand", "--model", "finetune", cwd=tmp_path)
    assert refused.code != 0
    told = rasura("stack", "retarget", "brand", "--base", "finetune", "--json", cwd=tmp_path).data
    assert told["reads_otherwise"] == "network that text goes through"
    (made,) = told["made"]
    assert float(made["measured"]["residual"]) < 0.01


def _finetune(file: Path, kept: tuple[str, ...]) -> None:
    """A denoiser's weights with a little noise in its matrices, but for what begins like this."""
    generator, tensors = torch.Generator().manual_seed(1), load_file(file)
    found = {key: each if key.startswith(kept) else _blurred(each, generator) for key, each in tensors.items()}
    save_file(found, file, {"format": "pt"})


def _blurred(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A matrix with a twentieth of noise in it; whatever else as it is."""
    if tensor.dim() != 2:  # a matrix
        return tensor
    return tensor + 0.05 * tensor.std() * torch.randn(tensor.shape, generator=generator)


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_found_by_running_the_model(name: str, tmp_path: Path) -> None:
    model = tiny_of(tmp_path / "model", name)
    infos = CheckpointHost.open(model).parameters()
    family = find_family(infos)
    assert family is not None
    assert family.name == name
    trace = probe_folder(model)
    assert find_disagreements(trace, family, infos) == []
    for layers in ("text", "kv") if name in PROJECTED else ("text",):
        named = [n for n in find_cross_attention(infos, layers) if not n.startswith("transformer_2.")]
        (way,) = {layer.through for n in named if (layer := trace.layer(n))}
        assert way == family.through(entrances=layers == "text")


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_read_as_the_pipeline_reads_them(name: str, tmp_path: Path) -> None:
    encoder = TextEncoder.pristine(CheckpointHost.open(tiny_of(tmp_path / "model", name)))
    texts = ["a photo of dog", "a photo of cat", "", "Dog!"]
    read = encoder.encode_all(texts)
    assert torch.isfinite(read).all()
    (place,) = encoder.places("a photo of dog", "dog")
    (other,) = encoder.places("a photo of cat", "cat")
    assert place.subject == other.subject
    apart = (read[0] - read[1]).abs().sum(-1)
    if encoder.towers[0].kind.causal:
        assert float(apart[: place.subject.start].max()) == 0
    assert float(apart[place.subject].min()) > 0


def test_a_pipeline_that_reads_the_prompt_beside_a_picture_is_refused(tmp_path: Path) -> None:
    model = tiny_of(tmp_path / "model", "Qwen-Image")
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps(index | {"_class_name": "QwenImageEditPipeline"}))
    with pytest.raises(
        UnsupportedHostError, match="QwenImageEditPipeline, whose encode_prompt reads it beside a picture"
    ):
        TextEncoder.pristine(CheckpointHost.open(model))


def test_what_a_processor_adds_to_text_changes_nothing(tmp_path: Path) -> None:
    """Qwen3-VL's marks which tokens are of pictures: none of a prompt alone."""
    encoder = open_tiny(tiny_of(tmp_path / "model", "Qwen-Image 2.1")).text_encoder
    ids = torch.arange(1, 8)[None]
    with torch.no_grad():
        plain = encoder(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
        marked = encoder(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=torch.zeros_like(ids),
            output_hidden_states=True,
        )
    for one, other in zip(plain.hidden_states, marked.hidden_states, strict=True):
        assert torch.equal(one, other)


def test_a_pipeline_whose_libraries_are_missing_says_which(tmp_path: Path) -> None:
    """Diffusers has something in its place that falls over whoever looks at it; so is Kolors without sentencepiece."""
    model = tiny_of(tmp_path / "model", "Chroma")
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps(index | {"_class_name": "SpectrogramDiffusionPipeline"}))
    with pytest.raises(UnsupportedHostError, match="got an environment without note_seq") as caught:
        TextEncoder.pristine(CheckpointHost.open(model))
    assert caught.value.hint == "pip install note_seq"


@pytest.mark.parametrize("method", ["sepme", "all-but-one"])
def test_trained_methods_say_why_they_do_not_train_a_transformer(method: str, tmp_path: Path) -> None:
    typed = _Typed(tmp_path)
    tiny_of(tmp_path / "model", "Chroma")
    (tmp_path / "retain.txt").write_text("\n".join(WORDS))
    for words in (("init",), ("key", "new", "alice"), ("base", "add", "model", "--name", "it")):
        typed(*words)
    erase = ["erase", "--base", "it", "--concept", "dog", "--anchor", "cat", "--retain", "retain.txt"]
    refused = rasura(*erase, "--layers", "text", "--method", method, "--json", cwd=tmp_path)
    error = refused.envelope["error"]
    assert error["code"] == "unsupported_host"
    assert f"method {method}: expected a model that reads the embeddings of one CLIP" in error["message"]
    assert "text_encoder (by ChromaPipeline, width 4096) and draws by a transformer" in error["message"]
    assert "predicts noise" in error["message"]
    assert error["hint"] == f"rasura {' '.join(erase)} --method null-space --layers text"


def test_half_the_numbers_are_said_and_are_near(tmp_path: Path) -> None:
    """In bfloat16 an encoder gives other rows; a patch that is solved on them says so, and stays in that dtype."""
    host = CheckpointHost.open(tiny_of(tmp_path / "model", "Chroma"))
    whole, before = TextEncoder.pristine(host), get_settings()
    use(replace(before, encoder_dtype="bfloat16", encoder_device="cpu"))
    try:
        half = TextEncoder.pristine(host)
        read, near = whole.encode_all(["a photo of dog"]), half.encode_all(["a photo of dog"])
        use(replace(before, encoder_device="nowhere"))
        with pytest.raises(InputError, match="text_encoder cannot be put on 'nowhere'"):
            half.encode_all(["a photo of dog"])
    finally:
        use(before)
    assert (whole.dtype, half.dtype) == ("", "BF16")
    assert half.reading()["dtype"] == "BF16"
    assert "dtype" not in whole.reading()
    apart = float((near - read).norm() / read.norm())
    assert 0 < apart < 0.02


def test_targets_at_another_place_of_the_denoiser_are_not_protected_by_their_width(tmp_path: Path) -> None:
    """LTX reads text before its projection (`text`) and behind it (`kv`): two spaces, in the tiny model of one width."""
    typed = _Typed(tmp_path)
    tiny_of(tmp_path / "model", "LTX")
    (tmp_path / "retain.txt").write_text("\n".join(WORDS[:1]))
    (tmp_path / "held-out.txt").write_text("river\n")
    for words in (("init",), ("key", "new", "alice"), ("base", "add", "model", "--name", "it")):
        typed(*words)
    erase = [
        "erase",
        "--base",
        "it",
        "--anchor",
        "cat",
        "--retain",
        "retain.txt",
        "--held-out",
        "held-out.txt",
        "--template",
        "a photo of {}",
        "--tokens",
        "last",
        *_EXACT,
    ]
    typed(*erase, "--concept", "dog", "--layers", "kv")
    with Registry.open(tmp_path) as registry:
        (record,) = registry.patches()
    refused = rasura(*erase, "--concept", "tree", "--layers", "text", "--protect", record.patch_id[:12], cwd=tmp_path)
    assert refused.code != 0
    assert "its layers read text behind transformer.caption_projection" in refused.err
    assert "text reads it as the encoder gives it" in refused.err
    typed(*erase, "--concept", "tree", "--layers", "kv", "--protect", record.patch_id[:12])
