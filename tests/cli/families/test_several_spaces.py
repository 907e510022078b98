"""Models whose layers read the prompt as several kinds of states: HiDream's maps, and cross-attention of Wan 2.2.

What holds in one space must hold in each of them: a second concept is kept off the first in all, a takedown solves in
all, a finetune gets its responses in all.
"""

import json
from dataclasses import replace
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.commandline import Run, rasura
from support.full import some
from support.models.tiny_pipelines import tiny_of
from support.registries.workshop import digests

from rasura.patches.checks.kernels.capacity import Capacity
from rasura.patches.checks.kernels.footprint import Footprint, spaces_of
from rasura.patches.errors import BaseMismatchError, UnsupportedHostError
from rasura.patches.format.patch import Patch
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.models.families import FAMILIES, find_family
from rasura.patches.models.probe.agreement import explain_separable
from rasura.patches.models.probe.probe import probe_live
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.models.text_spaces import find_text_spaces, list_entries
from rasura.patches.solving.by_space import guard_in
from rasura.patches.solving.from_manifest import request_of
from rasura.patches.solving.moments import Moments, sum_moment, sum_moments
from rasura.registry.registry import Registry
from rasura.registry.trust.verified_patch import load_verified

WAYS = {"HiDream": "text", "Wan 2.2": "kv"}
EXACT = ("--set", "ridge=1e-6", "--set", "energy=1")
HIDREAM = next(family for family in FAMILIES if family.name == "HiDream")


def started(folder: Path, name: str) -> tuple[str, ...]:
    """A registry with the base `it`, and the words of an erasure but for the concept."""
    tiny_of(folder / "model", name)
    (folder / "retain.txt").write_text("house\n")
    (folder / "held-out.txt").write_text("river\n")
    for words in (("init",), ("key", "new", "alice"), ("base", "add", "model", "--name", "it")):
        typed(folder, *words)
    common = ("erase", "--base", "it", "--anchor", "cat", "--retain", "retain.txt", "--held-out", "held-out.txt")
    return (*common, "--template", "a photo of {}", "--layers", WAYS[name], "--tokens", "last", *EXACT)


def typed(folder: Path, *words: str) -> Run:
    run = rasura(*words, cwd=folder)
    assert run.code == 0, run.out + run.err
    return run


def patches_of(folder: Path) -> dict[str, Patch]:
    with Registry.open(folder) as registry:
        found = [load_verified(registry, record.patch_id) for record in registry.patches()]
    return {patch.manifest.concept.text: patch for patch in found}


@pytest.mark.parametrize("name", some(["Wan 2.2"], list(WAYS)))
def test_a_second_concept_is_kept_off_the_first_in_every_space(name: str, tmp_path: Path) -> None:
    erase = started(tmp_path, name)
    typed(tmp_path, *erase, "--concept", "dog")
    dog = patches_of(tmp_path)["dog"]
    typed(tmp_path, *erase, "--concept", "tree", "--protect", dog.patch_id)
    tree = patches_of(tmp_path)["tree"]
    own, other = Footprint.of(tree), Footprint.of(dog)
    assert own.kernels.keys() == other.kernels.keys()
    assert len(own.kernels) > 1
    for space, kernel in own.kernels.items():
        moved = float(torch.from_numpy(kernel @ other.targets[space]).norm())
        work = float(torch.from_numpy(other.kernels[space] @ other.targets[space]).norm())
        assert moved < 0.05 * work, space
    refused = rasura("patch", "check", "dog", "tree", cwd=tmp_path)
    assert refused.code == 3
    typed(tmp_path, "patch", "rebase", dog.patch_id, "--protect", tree.patch_id)  # as its hint says
    run = typed(tmp_path, "patch", "check", "dog", "tree")
    assert "dimensions taken" in run.out
    files = digests(tmp_path / "model")
    typed(tmp_path, "patch", "apply", "dog", "tree", "--model", "model")
    typed(tmp_path, "patch", "revert", "--all", "--model", "model", "--yes")
    assert digests(tmp_path / "model") == files


@pytest.mark.parametrize("name", some(["HiDream"], list(WAYS)))
def test_a_patch_of_fewer_layers_is_no_guard(name: str, tmp_path: Path) -> None:
    """What it erases is not known as the other spaces have it."""
    erase = started(tmp_path, name)
    typed(tmp_path, *erase, "--concept", "dog")
    dog = patches_of(tmp_path)["dog"]
    with Registry.open(tmp_path) as registry:
        request = request_of([dog.manifest], None)
        guarded = replace(request, guarded={dog.patch_id: dog.tensors.targets})
        (record,) = registry.bases()
    encoder = TextEncoder.pristine(CheckpointHost.open(Path(record.source)))
    further = encoder.reading_by_space(request.layers, sorted(dog.tensors.increments))[1]
    with pytest.raises(BaseMismatchError, match="expected a patch of the same layers"):
        guard_in(further[0], further[1].width, guarded)


@pytest.mark.parametrize("name", some(["HiDream"], list(WAYS)))
def test_takedowns_follow_one_another_and_are_withdrawn(name: str, tmp_path: Path) -> None:
    started(tmp_path, name)
    model = tmp_path / "model"
    files = digests(model)
    (tmp_path / "templates.txt").write_text("a photo of {}\n")
    common = ("takedown", "--model", "model", "--anchor", "cat", "--retain", "retain.txt", "--yes", "--templates",
        "templates.txt", "--tokens", "last", "--layers", WAYS[name])  # fmt: skip
    typed(tmp_path, *common, "--concept", "dog")
    typed(tmp_path, *common, "--concept", "tree")
    assert len(typed(tmp_path, "patch", "status", "--model", "model", "--json").data["applied"]) == 2
    typed(tmp_path, "withdraw", "dog", "--model", "model", "--yes")
    assert len(typed(tmp_path, "patch", "status", "--model", "model", "--json").data["applied"]) == 1
    typed(tmp_path, "patch", "revert", "--all", "--model", "model", "--yes")
    assert digests(model) == files


def test_prompts_are_read_once_for_all_layers_and_give_the_same_bits(tmp_path: Path) -> None:
    host = CheckpointHost.open(tiny_of(tmp_path / "model", "HiDream"))
    family = find_family(host.parameters())
    assert family is not None
    spaces = TextEncoder.pristine(host).reading_by_space("text", family.entrances(host.parameters()))
    readers = [own for space, own in spaces if space.layer is not None]
    assert len({own.space for _, own in spaces}) == len(spaces)
    words = [f"a photo of {word}" for word in ("dog", "cat", "tree", "house")]
    together: Moments = {}
    sum_moments(readers, lambda: words, len(words), together, lambda *_: None)
    for own in readers:
        apart: Moments = {}
        one = sum_moment(own, lambda: words, len(words), apart, lambda _: None)
        two = sum_moment(own, lambda: words, len(words), together, lambda _: None)
        assert torch.equal(one.total, two.total)
        assert one.count == two.count


def test_the_fullest_space_says_what_room_is_left(tmp_path: Path) -> None:
    erase = started(tmp_path, "HiDream")
    typed(tmp_path, *erase, "--concept", "dog")
    dog = patches_of(tmp_path)["dog"]
    room = Capacity.of([dog])
    assert room is not None
    spans = [dog.arrays.span_of(names[0]).rows.shape for names in spaces_of(dog).values()]
    assert room.share >= max(rows / width for rows, width in spans)
    assert {width for _, width in spans} == {192, 256}


def test_a_finetune_gets_its_responses_in_every_space(tmp_path: Path) -> None:
    erase = started(tmp_path, "HiDream")
    typed(tmp_path, *erase, "--concept", "dog")
    for file in tiny_of(tmp_path / "finetune", "HiDream").glob("transformer/*.safetensors"):
        generator = torch.Generator().manual_seed(1)
        tensors = {
            key: each + 0.05 * each.std() * torch.randn(each.shape, generator=generator) if each.dim() == 2 else each
            for key, each in load_file(file).items()
        }
        save_file(tensors, file, {"format": "pt"})
    typed(tmp_path, "stack", "create", "brand", "dog")
    told = typed(tmp_path, "stack", "retarget", "brand", "--base", "finetune", "--json").data
    (made,) = told["made"]
    assert float(made["measured"]["residual"]) < 0.01 < float(made["as_it_is"])


def test_a_configuration_that_names_no_layers_is_refused(tmp_path: Path) -> None:
    path = tiny_of(tmp_path / "model", "HiDream") / "transformer" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"llama_layers": [1, 2, 7]}))
    typed(tmp_path, "init")
    run = rasura("base", "add", "model", cwd=tmp_path)
    assert run.code == 1
    assert "text_encoder_4: expected layers 0 to 2, got 7" in run.err
    host = CheckpointHost.open(tmp_path / "model")
    names = HIDREAM.entrances(host.parameters())
    assert HIDREAM.layered is not None
    for wrong in (None, [], ["1"], [True], [-1], [5000], "012", [0] * 5000):
        with pytest.raises(UnsupportedHostError, match="expected llama_layers to name a layer"):
            list_entries(HIDREAM.layered, {"llama_layers": wrong})
        with pytest.raises(UnsupportedHostError):
            find_text_spaces(HIDREAM, names, {"llama_layers": wrong})


def test_layers_are_told_from_each_other_and_from_what_is_as_wide(tmp_path: Path) -> None:
    """As in the published model, T5's states and Llama's are of one width, and several maps read the last layer."""
    transformer = diffusers.HiDreamImageTransformer2DModel(
        patch_size=2, in_channels=4, num_layers=1, num_single_layers=3, attention_head_dim=8, num_attention_heads=2,
        caption_channels=[32, 32], text_emb_dim=16, num_routed_experts=2, axes_dims_rope=(4, 2, 2),
        max_resolution=(8, 8), llama_layers=[0, 3, 1, 3], force_inference_output=True,
    )  # fmt: skip
    maps = [layer for layer in probe_live(transformer).entrances if "caption_projection" in layer.pattern]
    read = {int(layer.pattern.split(".")[2]): layer.input for layer in maps}
    states = "encoder_hidden_states_llama3"
    assert read == {
        0: f"{states}[0]", 1: f"{states}[3]", 2: f"{states}[1]", 3: f"{states}[3]", 4: "encoder_hidden_states_t5",
    }  # fmt: skip
    infos = TorchHost({"transformer": transformer}, "it").parameters()
    spaces = find_text_spaces(HIDREAM, HIDREAM.entrances(infos), dict(transformer.config))
    assert [(space.name, len(space.names)) for space in spaces] == [
        ("", 1), ("text_encoder_4.layers.0", 1), ("text_encoder_4.layers.1", 1), ("text_encoder_4.layers.3", 2),
    ]  # fmt: skip
    (tmp_path / "transformer").mkdir()
    transformer.save_config(tmp_path / "transformer")
    assert explain_separable(tmp_path, infos) is not None
