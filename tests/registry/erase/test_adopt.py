# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Erasures made elsewhere, adopted: beside our own patches, on disk and off again, bit for bit, or refused by name."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from support.commandline import rasura
from support.models.foreign import last_token, lora_of, save_kohya, train_lora, uce_weights
from support.registries.workshop import ALICE, Workshop, digests, silent, workshop
from transformers import CLIPTextModel, CLIPTokenizer

from rasura.patches.checks.kernels.disturbance import measure_own_leak
from rasura.patches.checks.policy import Policy
from rasura.patches.errors import (
    BaseMismatchError,
    ErasureRefusedError,
    InputError,
    NotFoundError,
)
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.prompts.retain_set import RetainSet
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.erase.adopt import Adoption, Foundling, Portion, adopt
from rasura.registry.erase.base_models import add_base
from rasura.registry.erase.rebase import join, rebase
from rasura.registry.erase.solve_again import Anew
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.stacks.policy_file import put_in_force

DRAFT = Draft("bob", "from another team", "patch.adopt", "success")
RETAIN = RetainSet("retain.txt", ("painting", "a", "the"))
TEXT = ("attn2.to_k", "attn2.to_v")


@pytest.fixture(autouse=True)
def lenient(workshop: Workshop) -> None:
    """A policy that takes what hardly erases: what is trained in a moment on random weights is such."""
    with workshop.open() as opened:
        put_in_force(opened, Policy(moved=0.0), ALICE)


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        yield opened


def encoders(model: Path) -> tuple[Any, Any]:
    encoder = CLIPTextModel.from_pretrained(model / "text_encoder", dtype=torch.float32)
    return CLIPTokenizer.from_pretrained(model / "tokenizer"), encoder


def unet_of(model: Path) -> Any:
    return UNet2DConditionModel.from_pretrained(model / "unet", torch_dtype=torch.float32)


@pytest.fixture
def uce(workshop: Workshop, tmp_path: Path) -> Path:
    """An erasure of "cat" by UCE's own formula, full weights in float32."""
    tokenizer, encoder = encoders(workshop.model)
    unet = load_file(workshop.model / "unet" / "diffusion_pytorch_model.safetensors")
    edits, kept = (("cat", "van"),), ("painting", "photo")
    found = uce_weights(unet, lambda p: last_token(tokenizer, encoder, p), edits, kept)
    save_file(found, tmp_path / "uce.safetensors")
    return tmp_path / "uce.safetensors"


def trained(workshop: Workshop, modules: tuple[str, ...], rank: int) -> Any:
    from peft import LoraConfig

    tokenizer, encoder = encoders(workshop.model)
    goals = [
        torch.stack([last_token(tokenizer, encoder, p) for p in pair]) for pair in (("cat", "a cat"), ("van", "a van"))
    ]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(modules))
    return train_lora(unet_of(workshop.model), goals[0], goals[1], config)


@pytest.fixture
def lora(workshop: Workshop, tmp_path: Path) -> Path:
    """A LoRA of keys and values, trained and saved by PEFT."""
    trained(workshop, TEXT, 4).save_pretrained(tmp_path / "lora")
    return tmp_path / "lora"


@pytest.fixture
def spm(workshop: Workshop, tmp_path: Path) -> Path:
    """One-dimensional adapters on every projection of attention, in SPM's names."""
    model = trained(workshop, (*TEXT, "attn2.to_q", "attn1.to_q"), 1)
    for name, parameter in model.named_parameters():
        if "to_q.lora_B" in name:  # nothing trained these: the loss above reads keys and values alone
            torch.nn.init.normal_(parameter, std=0.02)
    save_kohya(tmp_path / "spm.safetensors", lora_of(model))
    return tmp_path / "spm.safetensors"


def adoption(source: Path, **choices: Any) -> Adoption:
    fixed: dict[str, Any] = {
        "tokens": "last",
        "templates": ("{}", "a {}"),
        "rank_rule": "count:8",
        "held_out": ("tree",),
    }
    made_by = choices.pop("made_by", "other")
    portion = Portion(
        **{name: choices.pop(name) for name in ("whole", "leave_out", "scale", "energy", "rank") if name in choices}
    )
    return Adoption(source, Target("cat", "van"), RETAIN, made_by, portion, **(fixed | choices))


def adopted(registry: Registry, wanted: Adoption, **how: Any) -> Foundling:
    return adopt(registry, "tiny", wanted, key=None, draft=DRAFT, progress=silent, **how)


def number(found: Foundling, name: str) -> float:
    return float(found.patch.manifest.measured[name])


@pytest.mark.parametrize("kind", ["uce", "lora", "spm"])
def test_adopted_checked_applied_and_reverted_bit_for_bit(
    workshop: Workshop, registry: Registry, kind: str, request: pytest.FixtureRequest
) -> None:
    source: Path = request.getfixturevalue(kind)
    wanted = adoption(source, made_by=kind, leave_out=kind == "spm")
    found = adopted(registry, wanted, protect=[workshop.van_gogh])
    manifest = found.patch.manifest
    assert found.new
    assert manifest.separable
    assert (manifest.eraser.name, manifest.eraser.options["made_by"]) == ("adopted", kind)
    assert measure_own_leak(found.patch) < 1e-5  # from the stored numbers, weighed without the base
    assert number(found, "leak_null") < 1e-6 < number(found, "given_leak_null")
    assert number(found, "given_residual") < 0.5
    assert number(found, "lost") < 0.02
    assert number(found, "residual") < 1
    shares = [number(found, n) ** 2 for n in ("taken", "rest", "left_out")]
    assert sum(shares) == pytest.approx(1, abs=2e-3)
    assert registry.patch(found.patch.patch_id).key_id == registry.keys()[0].key_id

    (ours,) = rebase(registry, [workshop.van_gogh], Anew(protect=(found.patch.patch_id,)), DRAFT, silent)
    before = digests(workshop.model)
    host = workshop.host()
    operations.apply(registry, host, [ours.patch.patch_id, found.patch.patch_id], ALICE)  # checked beside each other
    assert digests(workshop.model) != before
    operations.revert(registry, host, [ours.patch.patch_id], ALICE)
    operations.revert(registry, host, [found.patch.patch_id], ALICE)
    after = digests(workshop.model)
    assert {n: d for n, d in after.items() if n in before} == before
    verify_log(registry)


def test_what_is_separable_and_what_is_not_are_what_they_say(registry: Registry, uce: Path, workshop: Workshop) -> None:
    """The stored factors are the projection of ΔW, by a projection written here."""
    found = adopted(registry, adoption(uce))
    rows = found.patch.tensors.protected
    base = load_file(workshop.model / "unet" / "diffusion_pytorch_model.safetensors")
    for key, edited in load_file(uce).items():
        delta = edited.double() - base[key].double()
        part = delta - (delta @ rows.T) @ rows
        increment = found.patch.tensors.increments[f"unet.{key}"]  # type: ignore[index]
        assert float((increment.dense() - part).norm() / part.norm()) < 0.02
    rest = number(found, "rest")
    whole = adopted(registry, adoption(uce, whole=True))
    assert not whole.patch.manifest.separable
    assert number(whole, "taken") == 1
    assert number(whole, "rest") == 0 < rest
    assert number(whole, "residual") == pytest.approx(number(whole, "given_residual"), rel=0.02)


def test_whole_is_the_file_that_came(registry: Registry, uce: Path, workshop: Workshop) -> None:
    """At full energy the model with the patch is the foreign checkpoint, rounded to the model's type."""
    found = adopted(registry, adoption(uce, whole=True, energy=1.0, rank=1024))
    operations.apply(registry, workshop.host(), [found.patch.patch_id], ALICE)
    now = load_file(workshop.model / "unet" / "diffusion_pytorch_model.safetensors")
    for key, edited in load_file(uce).items():
        assert (
            float((now[key].float() - edited).abs().max())
            <= 2 * float(edited.half().float().sub(edited).abs().max()) + 1e-4
        )


def test_a_low_rank_loses_what_it_says(registry: Registry, lora: Path) -> None:
    full = adopted(registry, adoption(lora))
    assert number(full, "lost") < 0.02
    one = adopted(registry, adoption(lora, rank=1))
    assert one.patch.manifest.measured["rank"] == "1"
    assert number(one, "lost") > 0.1
    assert number(one, "lost_targets") > number(full, "lost_targets")


def test_the_best_scale_erases_best(registry: Registry, uce: Path) -> None:
    found = adopted(registry, adoption(uce))
    scale = number(found, "best_scale")
    assert number(found, "best_residual") <= number(found, "residual") + 1e-3
    scaled = adopted(registry, adoption(uce, scale=scale))
    assert number(scaled, "residual") == pytest.approx(number(found, "best_residual"), rel=0.02)


def test_the_same_file_gives_the_same_patch(registry: Registry, lora: Path, tmp_path: Path) -> None:
    first = adopted(registry, adoption(lora))
    shutil.copytree(lora, tmp_path / "elsewhere")
    again = adopted(registry, adoption(tmp_path / "elsewhere"))
    assert again.patch.patch_id == first.patch.patch_id
    assert (first.new, again.new) == (True, False)


def test_layers_that_read_the_picture_are_taken_only_when_asked(
    workshop: Workshop, registry: Registry, spm: Path
) -> None:
    with (
        workshop.unchanged("refused erasure_refused"),
        pytest.raises(ErasureRefusedError, match="do not read text") as no,
    ):
        adopted(registry, adoption(spm))
    assert "--take whole" in no.value.message
    assert "--leave-out" in no.value.hint
    found = adopted(registry, adoption(spm, whole=True))
    reads = found.patch.manifest.protected.reads
    assert reads
    assert set(reads.values()) == {"image"}
    assert all("attn1.to_q" in n or "attn2.to_q" in n for n in reads)
    assert not found.patch.manifest.separable


def test_what_is_not_linear_is_refused_and_named(
    workshop: Workshop, registry: Registry, uce: Path, tmp_path: Path
) -> None:
    base = load_file(workshop.model / "unet" / "diffusion_pytorch_model.safetensors")
    name = next(n for n in base if n.endswith("conv1.weight"))
    save_file(load_file(uce) | {name: base[name].float() + 1}, tmp_path / "esd.safetensors")
    for whole in (False, True):
        with workshop.unchanged("refused erasure_refused"), pytest.raises(ErasureRefusedError, match=name) as refused:
            adopted(registry, adoption(tmp_path / "esd.safetensors", whole=whole))
        assert refused.value.details["left_out"] == 1
    found = adopted(registry, adoption(tmp_path / "esd.safetensors", leave_out=True))
    assert found.patch.manifest.measured["left_out_layers"] == "1"
    assert number(found, "left_out") > 0.5


def test_only_what_cannot_be_held_is_refused_whatever_is_said(
    workshop: Workshop, registry: Registry, tmp_path: Path
) -> None:
    base = load_file(workshop.model / "unet" / "diffusion_pytorch_model.safetensors")
    name = next(n for n in base if n.endswith("conv1.weight"))
    save_file({name: base[name] + 1}, tmp_path / "conv.safetensors")
    with pytest.raises(ErasureRefusedError, match="serve that model"):
        adopted(registry, adoption(tmp_path / "conv.safetensors", leave_out=True))
    save_file(base, tmp_path / "same.safetensors")
    with pytest.raises(InputError, match="is the base"):
        adopted(registry, adoption(tmp_path / "same.safetensors"))


def test_a_change_inside_what_is_kept_has_no_separable_part(
    workshop: Workshop, registry: Registry, tmp_path: Path
) -> None:
    """ΔW that reads nothing but the null prompt's first token."""
    tokenizer, encoder = encoders(workshop.model)
    ids = tokenizer("", padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        start = encoder(ids.input_ids)[0][0, 0]
    base = load_file(workshop.model / "unet" / "diffusion_pytorch_model.safetensors")
    found = {
        n: w.float() + torch.outer(torch.ones(w.shape[0]), start / start.norm())
        for n, w in base.items()
        if n.endswith("attn2.to_v.weight")
    }
    save_file(found, tmp_path / "null.safetensors")
    with (
        workshop.unchanged("refused erasure_refused"),
        pytest.raises(ErasureRefusedError, match="inside what is protected"),
    ):
        adopted(registry, adoption(tmp_path / "null.safetensors"))


def test_it_lives_beside_ours_and_is_kept_off_them(workshop: Workshop, registry: Registry, lora: Path) -> None:
    found = adopted(registry, adoption(lora), protect=[workshop.van_gogh])
    assert found.patch.manifest.protected.patches == (workshop.van_gogh,)
    (moved,) = rebase(
        registry, [adopted(registry, adoption(lora)).patch.patch_id], Anew(protect=(workshop.van_gogh,)), DRAFT, silent
    )
    assert moved.patch.manifest.supersedes == (moved.old.patch_id,)
    assert [pair.after is not None and pair.after < 1e-3 for pair in moved.pairs] == [True]
    with pytest.raises(InputError, match="was adopted"):
        join(registry, [found.patch.patch_id, workshop.dog], Anew(), DRAFT, silent)


def test_what_leaves_its_concept_where_it_was_is_not_adopted(
    workshop: Workshop, registry: Registry, uce: Path, tmp_path: Path
) -> None:
    """A change for another concept, and one that is a hundredth of an erasure: the scale that would erase is named."""
    put_in_force(registry, Policy(), ALICE)
    unet = load_file(workshop.model / "unet" / "diffusion_pytorch_model.safetensors")
    weak = {name: unet[name] + 0.01 * (edited - unet[name]) for name, edited in load_file(uce).items()}
    save_file(weak, tmp_path / "weak.safetensors")
    source = tmp_path / "weak.safetensors"
    with workshop.unchanged("refused erasure_refused"), pytest.raises(ErasureRefusedError, match="erases little") as no:
        adopted(registry, adoption(source, whole=True))
    option, scale = no.value.hint.split()
    assert option == "--scale"
    assert 50 < float(scale) < 200
    assert adopted(registry, adoption(source, whole=True, scale=float(scale))).new


def test_a_base_that_moved_is_named_and_compared(
    workshop: Workshop, registry: Registry, uce: Path, tmp_path: Path
) -> None:
    moved, other = tmp_path / "moved", tmp_path / "second"
    shutil.copytree(workshop.model, other)
    unet = other / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(unet)
    save_file(tensors | {"conv_in.weight": tensors["conv_in.weight"] + 1}, unet)
    add_base(registry, other, "second", DRAFT, silent)
    shutil.move(other, moved)
    with pytest.raises(NotFoundError) as gone:
        adopt(registry, "second", adoption(uce), key=None, draft=DRAFT, progress=silent)
    assert "--model DIR" in gone.value.hint
    assert adopt(registry, "second", adoption(uce), key=None, draft=DRAFT, progress=silent, model=moved).new
    with pytest.raises(BaseMismatchError, match="is not base"):
        adopted(registry, adoption(uce), model=moved)


def test_a_lone_peft_file_wants_its_scale(registry: Registry, lora: Path, tmp_path: Path) -> None:
    shutil.copy(lora / "adapter_model.safetensors", tmp_path / "lost.safetensors")
    with pytest.raises(InputError, match="lora_alpha / r"):
        adopted(registry, adoption(tmp_path / "lost.safetensors"))
    assert adopted(registry, adoption(tmp_path / "lost.safetensors", scale=1.0)).new


def test_from_the_command_line(workshop: Workshop, uce: Path, tmp_path: Path) -> None:
    (tmp_path / "retain.txt").write_text("\n".join([*RETAIN.concepts, "cat"]))
    said: list[str | Path] = [
        "adopt",
        uce,
        "--base",
        "tiny",
        "--concept",
        "cat",
        "--anchor",
        "van",
        "--method",
        "uce",
        "--tokens",
        "last",
    ]
    said += ["--retain", tmp_path / "retain.txt", "--rank-rule", "count:8", "--template", "{}", "--licence", "MIT"]
    data = rasura(*said, "--json", "--reason", "ticket 9", cwd=workshop.folder).data
    assert data["new"]
    assert data["separable"]
    assert data["removed_from_retain"] == ["cat"]
    assert {c["reads"] for c in data["changes"]} == {"text"}
    again = rasura(*said, cwd=workshop.folder)
    assert again.code == 0
    for word in ("AS IT CAME", "ADOPTED", "was here already", "separable", "rest ", "not retained"):
        assert word in again.out
    shown = rasura("patch", "show", data["id"][:12], cwd=workshop.folder)
    assert shown.code == 0, shown.err
    assert "adopted" in shown.out
    entry = workshop.entries()[-1]
    assert (entry.action, entry.reason) == ("patch.adopt", "ticket 9")
    refused = rasura("adopt", tmp_path / "retain.txt", "--base", "tiny", "--concept", "cat", cwd=workshop.folder)
    assert refused.code == 1
    assert "safetensors" in refused.err


def test_lists_of_an_adoption_are_read_as_all_lists_are(workshop: Workshop, uce: Path) -> None:
    """Templates in quotes are refused, a column behind the file's name counts, and what was read is said."""
    home = workshop.folder
    (home / "prompts.txt").write_text("a photo of a {}\n{}\n")
    (home / "pasted.txt").write_text('"a photo of a {}"\n"{}"\n')
    (home / "retain.csv").write_text("id,word\n1,painting\n2,the\n")
    (home / "long.csv").write_text("id,word\n1," + "the " * 90 + "\n")
    source = ("adopt", uce, "--base", "tiny", "--concept", "cat", "--dry-run", "--json")
    words = (*source, "--retain", "retain.csv:word")
    done = rasura(*words, "--templates", "prompts.txt", "--protect", "all", cwd=home)
    assert done.code == 0, done.out + done.err
    assert [(each["list"], each["columns"], each["kept"]) for each in done.data["read"]] == [("retain", ["word"], 2)]
    pasted = rasura(*words, "--templates", "pasted.txt", cwd=home).envelope["error"]
    assert (pasted["code"], pasted["details"]["line"]) == ("list", 1)
    unnamed = rasura(*source, "--retain", "retain.csv", cwd=home)
    assert (unnamed.code, unnamed.envelope["error"]["code"]) == (1, "retain_set")
    long = rasura(*words, "--held-out", "long.csv:word", cwd=home)
    assert long.code != 0
    assert "long.csv" in long.envelope["error"]["message"]
    cut = rasura(*words, "--held-out", "long.csv:word", "--truncate", cwd=home)
    assert cut.data["read"][1]["cut"] == 1
