# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""One word, other ids: a tokenizer that reads text in another way is another base, and a patch does not go onto it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline
from support.models.tiny import TinySpec, tiny_model
from support.models.tiny_t5 import t5_tokenizer
from support.registries.workshop import ALICE, Workshop, workshop
from transformers import CLIPTextModel, T5Config

from rasura.patches._io import canonical_json
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import BaseMismatchError, DriftError, UnsupportedHostError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.models.family import Encoder
from rasura.patches.models.text_encoders.load_encoder import load_reader, load_readers
from rasura.patches.models.text_encoders.text_encoder import TextEncoder, tokenizer_state
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.erase.base_models import add_base, open_base
from rasura.registry.registry import Registry

Change = Callable[[Path], None]


def _edit(name: str, **fields: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        found = json.loads(path.read_text("utf-8")) if path.exists() else {}
        path.write_text(json.dumps(found | fields), "utf-8")

    return change


def _added(content: str, at: int, **fields: Any) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "special"), False)
    return {"id": at, "content": content, "normalized": True, **flags, **fields}


def _add_token(folder: Path) -> None:
    found = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    found["added_tokens"].append(_added("dog", 535))
    (folder / "tokenizer.json").write_text(json.dumps(found), "utf-8")


def _slow(folder: Path) -> None:
    """The files of a slow tokenizer instead."""
    model = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), "utf-8")
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(pairs) + "\n", "utf-8")


def _slow_and(name: str, **fields: Any) -> Change:
    def change(folder: Path) -> None:
        _slow(folder)
        _edit(name, **fields)(folder)

    return change


_DECODED = {"535": {key: value for key, value in _added("dog", 535).items() if key != "id"}}

OTHER: dict[str, Change] = {
    "an added token in tokenizer.json": _add_token,
    "an added token in added_tokens.json": _edit("added_tokens.json", dog=535),
    "an added token in tokenizer_config.json": _edit("tokenizer_config.json", added_tokens_decoder=_DECODED),
    "an added special token": _edit("tokenizer_config.json", additional_special_tokens=["dog"]),
    "an added token of a slow tokenizer": _slow_and("added_tokens.json", dog=535),
    "another pad": _edit("special_tokens_map.json", pad_token="!"),
    "another pad of a slow tokenizer": _slow_and("special_tokens_map.json", pad_token="!"),
    "padding on the left": _edit("tokenizer_config.json", padding_side="left"),
    "special tokens split": _edit("tokenizer_config.json", split_special_tokens=True),
    "another normaliser": _edit("tokenizer.json", normalizer={"type": "NFC"}),
    "a normaliser that replaces a word": _edit(
        "tokenizer.json", normalizer={"type": "Replace", "pattern": {"String": "dog"}, "content": "cat"}
    ),
    "no pre-tokenizer": _edit("tokenizer.json", pre_tokenizer=None),
    "no post-processor": _edit("tokenizer.json", post_processor=None),
}


def _state(model: Path) -> str:
    (tower,) = load_readers(model)
    return digest_of(canonical_json.dumps(tokenizer_state([tower])))


@pytest.mark.parametrize("what", OTHER)
def test_a_tokenizer_is_another_with(what: str, tmp_path: Path) -> None:
    """Every file that decides ids, slow and fast."""
    model = tiny_model(tmp_path / "model")
    before = _state(model)
    OTHER[what](model / "tokenizer")
    assert _state(model) != before


def _old_spelling(folder: Path) -> None:
    """As older versions wrote it: another regular expression, fields left out, a template instead of Roberta's."""
    found = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    split, level = found["pre_tokenizer"]["pretokenizers"]
    split["pattern"]["Regex"] = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    del level["use_regex"]
    for token in found["added_tokens"]:
        token["normalized"] = True
    (eos, at), (bos, first) = found["post_processor"]["sep"], found["post_processor"]["cls"]
    found["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": bos, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": eos, "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            bos: {"id": bos, "ids": [first], "tokens": [bos]},
            eos: {"id": eos, "ids": [at], "tokens": [eos]},
        },
    }
    found["model"]["merges"] = [" ".join(pair) for pair in found["model"]["merges"]]
    found["model"].pop("ignore_merges", None)
    (folder / "tokenizer.json").write_text(json.dumps(found), "utf-8")


def _both(folder: Path) -> None:
    fast = (folder / "tokenizer.json").read_bytes()
    _slow(folder)
    (folder / "tokenizer.json").write_bytes(fast)


@pytest.mark.parametrize("change", [_slow, _old_spelling, _both], ids=["slow", "older", "slow and fast"])
def test_a_tokenizer_is_the_same_however_it_was_saved(change: Change, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    before = _state(model)
    change(model / "tokenizer")
    assert _state(model) == before


def test_an_ordinary_tokenizer_has_the_identity_that_older_registrations_recorded(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    (tower,) = TextEncoder.load(model).towers
    assert tower.state() == tower.plain_state()
    assert set(tower.state()) == {"vocab", "merges", "length", "special"}


def test_t5_is_ordinary_and_an_added_token_is_not(tmp_path: Path) -> None:
    kind = Encoder("text_encoder_3", "T5", 32, length=64)
    tokenizer = t5_tokenizer()
    T5Config(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "text_encoder_3")
    tokenizer.save_pretrained(tmp_path / "tokenizer_3")
    tower = load_reader(tmp_path, kind)
    assert tower.state() == tower.plain_state()
    found = json.loads((tmp_path / "tokenizer_3/tokenizer.json").read_text("utf-8"))
    found["added_tokens"].append(_added("dog", len(tokenizer)))
    (tmp_path / "tokenizer_3/tokenizer.json").write_text(json.dumps(found), "utf-8")
    changed = load_reader(tmp_path, kind)
    assert changed.plain_state() == tower.plain_state()
    assert changed.state() != tower.state()


def _swap(folder: Path) -> None:
    _both(folder)
    found = json.loads((folder / "vocab.json").read_text("utf-8"))
    found["dog</w>"], found["cat</w>"] = found["cat</w>"], found["dog</w>"]
    (folder / "vocab.json").write_text(json.dumps(found), "utf-8")


def _fewer_merges(folder: Path) -> None:
    _both(folder)
    lines = (folder / "merges.txt").read_text("utf-8").splitlines()
    (folder / "merges.txt").write_text("\n".join(lines[:-1]) + "\n", "utf-8")


def _one_sided(folder: Path) -> None:
    _both(folder)
    _add_token(folder)


def _piece(text: str) -> bytes:
    inner = b"\x0a" + bytes([len(text.encode())]) + text.encode() + b"\x15" + bytes(4)
    return b"\x0a" + bytes([len(inner)]) + inner


TWO = {"vocab.json": _swap, "merges.txt": _fewer_merges, "added_tokens.json": _one_sided}


@pytest.mark.parametrize("name", TWO)
def test_two_tokenizers_in_one_folder_are_refused(name: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    TWO[name](model / "tokenizer")
    with pytest.raises(UnsupportedHostError, match="expected one tokenizer, got two") as caught:
        load_readers(model)
    assert name in caught.value.message
    (model / "tokenizer/tokenizer.json").unlink()  # one of the two ways that the hint names
    load_readers(model)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_sentencepiece_model_says_what_the_fast_tokenizer_says(swapped: bool, tmp_path: Path) -> None:
    tokenizer = t5_tokenizer()
    T5Config(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "text_encoder_3")
    tokenizer.save_pretrained(tmp_path / "tokenizer_3")
    pieces = [p for p, _ in json.loads((tmp_path / "tokenizer_3/tokenizer.json").read_text("utf-8"))["model"]["vocab"]]
    if swapped:
        pieces[4], pieces[5] = pieces[5], pieces[4]
    (tmp_path / "tokenizer_3/spiece.model").write_bytes(b"".join(map(_piece, pieces)))
    kind = Encoder("text_encoder_3", "T5", 32, length=64)
    if swapped:
        with pytest.raises(UnsupportedHostError, match=r"spiece\.model does not say"):
            load_reader(tmp_path, kind)
    else:
        load_reader(tmp_path, kind)


def _spare(model: Path) -> None:
    """Rows that no token uses: encoders are padded to round numbers."""
    encoder = CLIPTextModel.from_pretrained(model / "text_encoder")
    encoder.resize_token_embeddings(544, mean_resizing=False)
    encoder.save_pretrained(model / "text_encoder")


def test_a_patch_does_not_go_onto_a_model_that_reads_its_words_otherwise(workshop: Workshop) -> None:
    """The same weights; one word of one more token."""
    with workshop.open() as registry:
        other = workshop.folder / "other"
        shutil.copytree(workshop.model, other)
        _edit("special_tokens_map.json", pad_token="!")(other / "tokenizer")
        before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
        for _ in range(2):  # loaded and remembered
            with pytest.raises(BaseMismatchError, match="reads text otherwise") as caught:
                operations.apply(registry, CheckpointHost.open(other), [workshop.dog], ALICE)
            assert caught.value.hint.startswith("rasura base add")
        assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == before
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
        # What was applied before the tokenizer changed comes out again.
        _edit("special_tokens_map.json", pad_token="!")(workshop.model / "tokenizer")
        operations.revert(registry, workshop.host(), [workshop.dog], ALICE)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("vocab.json", b'{"a": '),
        ("merges.txt", b"\xff\xfe\x00"),
        ("tokenizer_config.json", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_named_with_its_folder(
    file: str, content: bytes, workshop: Workshop
) -> None:
    other = workshop.folder / f"other-{file}"
    shutil.copytree(workshop.model, other)
    (other / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
    (other / "tokenizer" / file).write_bytes(content)
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    with workshop.open() as registry, pytest.raises(UnsupportedHostError, match=r"tokenizer/ cannot be loaded") as seen:
        operations.apply(registry, CheckpointHost.open(other), [workshop.dog], ALICE)
    assert str(other) in seen.value.message
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == before


def test_a_patch_does_not_go_onto_a_pipeline_whose_tokenizer_was_changed(workshop: Workshop) -> None:
    """In memory as on disk: no weight is another, and one word reads as one more token."""
    import rasura

    def load() -> Any:
        pipe = StableDiffusionPipeline.from_pretrained(workshop.model, safety_checker=None, local_files_only=True)
        return pipe, rasura.attach(pipe, workshop.folder)

    def weights(pipe: Any) -> dict[str, bytes]:
        return {name: value.numpy().tobytes() for name, value in pipe.unet.state_dict().items() if "attn2" in name}

    pipe, model = load()
    before = weights(pipe)
    model.apply(workshop.dog)
    assert weights(pipe) != before
    model.revert()
    assert weights(pipe) == before
    pipe.tokenizer.add_tokens(["dogs"])  # looked at once already, and another since
    with pytest.raises(BaseMismatchError, match="reads text otherwise"):
        model.apply(workshop.dog)
    assert weights(pipe) == before
    pipe, model = load()
    model.apply(workshop.dog)
    pipe.tokenizer.add_tokens(["dogs"])
    model.revert()  # what is in comes out
    assert weights(pipe) == before


def test_a_base_with_an_added_token_on_a_spare_row_is_another_base(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", TinySpec(size="wide"))
    _spare(model)
    shutil.copytree(model, tmp_path / "changed")
    _add_token(tmp_path / "changed/tokenizer")
    draft = Draft("alice", "", "base.add", "success")
    with Registry.create(tmp_path) as registry:
        first, _ = add_base(registry, model, "first", draft, lambda *_: None)
        second, new = add_base(registry, tmp_path / "changed", "second", draft, lambda *_: None)
        assert new
        assert first.identity.text_encoder == second.identity.text_encoder
        assert first.identity.digest != second.identity.digest
        _add_token(model / "tokenizer")
        with pytest.raises(DriftError, match=r"reads text otherwise.*added tokens 'dog'"):
            open_base(registry, "first", draft, lambda *_: None)
