# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Encoded prompts that are kept: asked for once, bit for bit the same, and never believed when damaged."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.commandline import rasura
from support.registries.workshop import ALICE, Workshop, request_for, silent, workshop, workshop_template

from rasura import patches
from rasura.patches._io.settings import Settings, get_settings, use
from rasura.patches.algebra.protected_subspace import Moment
from rasura.patches.checks.policy import Policy
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.models.remembered_texts import recall
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.prompts.retain_set import RetainSet
from rasura.patches.solving.judge_erasure import choose_anchors
from rasura.patches.solving.solve import build_patches
from rasura.patches.types import Digest
from rasura.registry._storage.files.cache import Cache
from rasura.registry._storage.records.records import Draft
from rasura.registry.erase.base_models import OpenBase, open_base
from rasura.registry.erase.encoded_prompts import _ENCODING, EncodedPrompts, open_moments
from rasura.registry.erase.encoded_texts import _DECIDING, EncodedTexts
from rasura.registry.standing.garbage import collect

DRAFT = Draft("bob", "", "patch.erase", "success")
WORDS = ("cat", "painting", "photo", "of", "a")


@pytest.fixture
def opened(workshop: Workshop) -> tuple[Workshop, OpenBase]:
    with workshop.open() as registry:
        base = open_base(registry, "tiny", DRAFT, silent)
    return workshop, base


def files(workshop: Workshop) -> list[Path]:
    return sorted(path for path in (workshop.folder / ".rasura" / "cache").rglob("*") if path.is_file())


def base_width(workshop: Workshop) -> int:
    """d, the length of a token embedding."""
    with workshop.open() as registry:
        return open_base(registry, "tiny", DRAFT, silent).encoder.width


def built(base: OpenBase, request: EraseRequest, cache: Path | None) -> tuple[list[dict[str, bytes]], list[str]]:
    """The patches' files, and the stages in which prompts were encoded."""
    stages: list[str] = []
    moments = None if cache is None else EncodedPrompts(Cache(cache), "this encoder")
    encoder = base.encoder
    if cache is not None:
        encoder = encoder.remembering(EncodedTexts(Cache(cache), "this encoder"))

    def progress(stage: str, done: int, total: int) -> None:
        stages.append(stage)

    made = build_patches(base.host, encoder, base.identity, request, progress, moments=moments)
    return [dict(patch.files()) for patch in made], [stage for stage in stages if "prompts" in stage]


@pytest.fixture(scope="module")
def base() -> OpenBase:
    template = workshop_template()
    with template.open() as registry:
        return open_base(registry, "tiny", DRAFT, silent)


@settings(max_examples=5)
@given(
    st.lists(st.sampled_from(WORDS), min_size=1, unique=True),
    st.lists(st.sampled_from(("{}", "a photo of {}", "painting of {}")), min_size=1, unique=True),
)
def test_the_same_request_gives_the_same_bytes_with_and_without(
    base: OpenBase, tmp_path_factory: pytest.TempPathFactory, words: list[str], templates: list[str]
) -> None:
    request = replace(
        request_for(Target("van", "cat")), retain=RetainSet("words.txt", tuple(words)), templates=tuple(templates)
    )
    folder = tmp_path_factory.mktemp("cache")
    never, _ = built(base, request, None)
    cold, encoded = built(base, request, folder)
    warm, again = built(base, request, folder)
    assert never == cold == warm
    assert encoded
    assert again == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "a folder", "a link", "another's"])
def test_what_is_damaged_is_computed_anew_and_put_right(base: OpenBase, tmp_path: Path, damage: str) -> None:
    request, folder = request_for(Target("van", "cat")), tmp_path / "cache"
    whole, _ = built(base, request, folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    before = {path: path.read_bytes() for path in paths}
    for path in paths:
        data = before[path]
        path.unlink()
        match damage:
            case "cut":
                path.write_bytes(data[:-8])
            case "flipped":
                path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            case "empty":
                path.write_bytes(b"")
            case "a folder":
                path.mkdir()
            case "a link":
                path.symlink_to(tmp_path / "elsewhere")
            case _:
                Cache(folder).write(Digest(path.parent.name + path.name), b"not a moment")
    made, encoded = built(base, request, folder)
    assert made == whole
    assert encoded
    if damage != "a folder":  # which nobody takes away; it is done without
        assert {path: path.read_bytes() for path in paths} == before


def test_a_folder_that_cannot_be_written_is_done_without(base: OpenBase, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    request = request_for(Target("van", "cat"))
    assert built(base, request, tmp_path / "file" / "cache")[0] == built(base, request, None)[0]


def test_another_command_does_not_encode_the_lists_again(workshop: Workshop) -> None:
    before = files(workshop)
    assert before  # by whoever made the workshop's patches
    (workshop.folder / "retain.txt").write_text("cat\npainting\n")
    erase = ("erase", "--base", "tiny", "--anchor", "cat", "--retain", "retain.txt", "--template", "{}")
    assert rasura(*erase, "--concept", "of", "--json", cwd=workshop.folder).code == 0
    once = files(workshop)
    assert len(once) > len(before)
    assert rasura(*erase, "--concept", "van", "--json", cwd=workshop.folder).code == 0
    new = [path for path in files(workshop) if path not in once]
    moment = 32 + 8 + 8 * base_width(workshop) ** 2
    assert [path for path in new if path.stat().st_size == moment] == []
    assert 0 < len(new) < 6  # the word itself: to be erased, to be judged, and as it is stored
    whole = files(workshop)
    assert rasura(*erase, "--concept", "van", "--dry-run", "--json", cwd=workshop.folder).code == 0
    assert files(workshop) == whole


def test_another_encoder_configuration_or_program_is_another_key(
    opened: tuple[Workshop, OpenBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop, base = opened
    with workshop.open() as registry:

        def reader(changed: OpenBase) -> str:
            found = open_moments(registry, changed)
            assert isinstance(found, EncodedPrompts)
            return found.reader

        first = reader(base)
        assert reader(base) == first
        other = {first}
        other.add(reader(replace(base, identity=replace(base.identity, text_encoder=Digest("0" * 64)))))
        other.add(reader(replace(base, identity=replace(base.identity, tokenizer=Digest("0" * 64)))))
        config = base.encoder.module.config
        monkeypatch.setattr(config, "num_attention_heads", config.num_attention_heads * 2)
        other.add(reader(base))
        monkeypatch.undo()
        monkeypatch.setattr(torch, "__version__", "0.0")
        other.add(reader(base))
        monkeypatch.undo()
        monkeypatch.setattr("rasura.registry.erase.encoded_prompts._digest_sources", lambda _: "other code")
        other.add(reader(base))
        assert len(other) == 6


def test_several_registries_share_a_folder_if_they_are_told_to(workshop: Workshop, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    with workshop.open() as registry:
        before = get_settings()
        try:
            use(replace(before, cache=str(shared)))
            assert registry.location.cache == shared
        finally:
            use(before)
        assert registry.location.cache == workshop.folder / ".rasura" / "cache"
    assert Settings.read({"RASURA_CACHE": "x"}).cache == "x"


def test_gc_takes_what_nobody_used_and_says_so(workshop: Workshop) -> None:
    kept, *old = files(workshop)
    assert old
    for path in old:
        os.utime(path, (time.time() - 3 * 86400,) * 2)
    size = sum(path.stat().st_size for path in old)
    with workshop.open() as registry, workshop.unchanged():
        found = collect(registry, ALICE, dry_run=True)
        assert (found.cached, found.cached_bytes) == (len(old), size)
        assert files(workshop) == sorted([kept, *old])
        assert collect(registry, ALICE, quiet=timedelta(days=5)).cached == 0
    run = rasura("gc", "--json", cwd=workshop.folder)
    assert (run.data["cached"], run.data["cached_bytes"]) == (len(old), size)
    assert run.envelope["changed"]
    assert files(workshop) == [kept]


def test_reading_counts_as_use(tmp_path: Path) -> None:
    cache, key = Cache(tmp_path), Digest("ab" * 32)
    cache.write(key, b"result")
    path = next(path for path in tmp_path.rglob("*") if path.is_file())
    os.utime(path, (1, 1))
    assert list(cache.unused(2)) == [(path, 32 + len(b"result"))]
    assert cache.read(key) == b"result"
    assert list(cache.unused(2)) == []
    assert path.stat().st_mode & 0o077 == 0


def test_a_moment_comes_back_bit_for_bit(tmp_path: Path) -> None:
    moment = Moment(5)
    moment.add(torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    EncodedPrompts(Cache(tmp_path), "x")["p"] = moment
    found = EncodedPrompts(Cache(tmp_path), "x")["p"]
    assert (found.count, torch.equal(found.total, moment.total), torch.equal(found.mean, moment.mean)) == (
        7,
        True,
        True,
    )
    assert "p" not in EncodedPrompts(Cache(tmp_path), "y")


def test_matrices_come_back_bit_for_bit(tmp_path: Path) -> None:
    wide = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    narrow = wide.to(torch.float32).to(torch.float64)
    for made in ((wide,), (narrow, wide.T.contiguous()), (torch.zeros(4, 0, dtype=torch.float64), narrow), (narrow.T,)):
        EncodedTexts(Cache(tmp_path), "x")["p"] = made
        found = EncodedTexts(Cache(tmp_path), "x")["p"]
        assert [a.shape for a in found] == [b.shape for b in made]
        assert all(torch.equal(a, b) and a.dtype is torch.float64 for a, b in zip(found, made, strict=True))
    assert EncodedTexts(Cache(tmp_path), "y").get("p") is None
    sizes = {path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}
    assert sizes == {32 + 9 + 4 * 15}  # what float32 holds takes half


def test_anchors_are_chosen_and_judged_from_what_is_remembered(
    base: OpenBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    plain = TextEncoder._begin

    def counting(self: TextEncoder, prompts: Sequence[str]) -> Callable[[], torch.Tensor]:
        read.append(len(prompts))
        return plain(self, prompts)

    monkeypatch.setattr(TextEncoder, "_begin", counting)
    words = RetainSet("words.txt", ("cat", "painting", "photo", "of", "a", "tree"))
    request = replace(request_for(Target("van", "auto")), retain=words, anchors=words.concepts)
    fresh = choose_anchors(base.host, base.encoder, request, Policy())
    first, without = sum(read), len(read)
    encoder = base.encoder.remembering(EncodedTexts(Cache(tmp_path), "this encoder"))
    for _ in range(2):
        read.clear()
        assert choose_anchors(base.host, encoder, request, Policy()).targets == fresh.targets
    assert first > 0
    assert without > len(read)
    assert sum(read) <= 1  # the empty prompt


def test_what_reads_otherwise_remembers_otherwise(base: OpenBase, tmp_path: Path) -> None:
    encoder = base.encoder.remembering(EncodedTexts(Cache(tmp_path), "this encoder"))
    assert encoder.with_modules({}).memory is None  # other weights make other embeddings
    assert encoder.reading_for("v").memory is encoder.memory
    one, other = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    assert recall(encoder, ("a", "b"), lambda: (one,))[0].item() == 1
    assert recall(encoder, ("a", "b"), lambda: (other,))[0].item() == 1
    assert recall(encoder, ("ab",), lambda: (other,))[0].item() == 0
    assert recall(base.encoder, ("a", "b"), lambda: (other,))[0].item() == 0


@pytest.mark.parametrize("name", sorted({*_ENCODING, *_DECIDING}))
def test_the_code_that_decides_the_bits_is_there(name: str) -> None:
    place = Path(patches.__path__[0]) / name
    assert place.is_file() or len(list(place.glob("*.py"))) > 1
