"""Families whose pipeline reads the prompt itself: the whole promise on tiny models of the real classes.

Base, probe, erase by two methods, with FULL=1 by three, check, apply and revert on disk and live bit for bit, the exported LoRA.
"""

from pathlib import Path

import pytest
import torch
from support.commandline import rasura
from support.full import FULL
from support.models.tiny_pipelines import NAMES, open_tiny, tiny_of
from support.registries.workshop import digests

import rasura as package
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.models.base_identity import find_cross_attention
from rasura.patches.models.families import find_family
from rasura.patches.models.probe.agreement import find_disagreements
from rasura.patches.models.probe.probe import probe_folder
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import Target, align_columns
from rasura.registry.registry import Registry

WORDS = ("photo", "tree", "house")
PROJECTED = ("Wan", "LTX", "Sana")
# Sana's instruction makes prompts of almost two thousand tokens here: its whole promise is run on one of its two spaces.
CASES = [(name, "text") for name in NAMES] + [(name, "kv") for name in ("Wan", "LTX")]


@pytest.mark.parametrize(("name", "layers"), CASES)
def test_the_whole_promise(name: str, layers: str, tmp_path: Path) -> None:  # noqa: PLR0915  # one story
    def typed(*arguments: str | Path, code: int = 0) -> str:
        run = rasura(*arguments, cwd=tmp_path)
        assert run.code == code, run.out + run.err
        return run.out + run.err

    model = tiny_of(tmp_path / "model", name)
    files = digests(model)
    (tmp_path / "retain.txt").write_text("\n".join(WORDS))
    typed("init")
    typed("key", "new", "alice")
    typed("base", "add", "model", "--name", "it")
    assert f"family  {name}" in typed("probe", "model")
    erase = ["erase", "--base", "it", "--concept", "dog", "--anchor", "cat", "--retain", "retain.txt"]
    erase += ["--template", "a photo of {}", "--layers", layers, "--tokens", "last"]
    exact = ("--set", "ridge=1e-6", "--set", "energy=1")
    others = ("speed", "uce") if FULL else (("speed", "uce")[CASES.index((name, layers)) % 2],)
    typed(*erase, "--method", "null-space", *exact)
    for method in others:
        typed(*erase, "--method", method)
    with Registry.open(tmp_path) as registry:
        made = {record.method: record.patch_id for record in registry.patches()}
    assert set(made) == {"null-space", *others}
    patch = made["null-space"]

    host = CheckpointHost.open(model)
    touched = find_cross_attention(host.parameters(), layers)
    encoder, before = TextEncoder.pristine(host).reading_for(layers), host.read(touched)
    typed("patch", "check", patch)
    typed("patch", "apply", patch, "--model", "model")
    after = CheckpointHost.open(model).read(touched)
    C1, C_star = align_columns(encoder, Target("dog", "cat"), ["a photo of {}"], "last")
    kept = encoder.encode_all(["", *(f"a photo of {word}" for word in WORDS)]).flatten(0, 1).T
    asked = left = held = moved = 0.0
    for layer in touched:
        W, new = before[layer].double(), after[layer].double()
        asked += float((W @ (C1 - C_star)).square().sum())
        left += float((new @ C1 - W @ C_star).square().sum())
        held += float((W @ kept).square().sum())
        moved += float(((new - W) @ kept).square().sum())
    assert (left / asked) ** 0.5 < 0.05
    assert (moved / held) ** 0.5 < 0.02

    pipeline = open_tiny(tiny_of(tmp_path / "fresh", name))
    live = TorchHost.of(pipeline)
    pristine = live.digests(live.parameters())
    handle = package.attach(pipeline, tmp_path)
    handle.apply([patch])
    assert live.digests(touched) == CheckpointHost.open(model).digests(touched)
    handle.revert([patch])
    assert live.digests(live.parameters()) == pristine
    typed("patch", "revert", patch, "--model", "model")
    assert digests(model) == files

    typed("patch", "export", patch, "-o", "out")
    pytest.importorskip("peft", reason="diffusers loads LoRA files with peft")
    pipeline.load_lora_weights(tmp_path / "out")
    for layer in touched[:4]:
        name_of = layer.removeprefix("transformer.").removesuffix(".weight")
        module = pipeline.transformer.get_submodule(name_of)
        with torch.no_grad():
            given = module(C1.T.float()) - module.base_layer(C1.T.float())
        wanted = ((after[layer].double() - before[layer].double()) @ C1).T
        assert torch.allclose(given.double(), wanted, atol=1e-3 * float(wanted.abs().max()))


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
        (way,) = {layer.through for n in find_cross_attention(infos, layers) if (layer := trace.layer(n))}
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
    (tower,) = encoder.towers
    if tower.kind.causal:
        assert float(apart[: place.subject.start].max()) == 0
    assert float(apart[place.subject].min()) > 0
