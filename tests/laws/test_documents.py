"""Manifests and patch files: one meaning a file, one file a meaning."""

import contextlib
import itertools
import random
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.full import FULL
from support.values import factories

from rasura.patches.errors import AlgebraError, VerificationError
from rasura.patches.format.manifest import Manifest
from rasura.patches.format.manifest_parts import DTYPES, BaseSpec, ConceptSpec, EraserSpec, TensorIdentity, TensorSpec
from rasura.patches.format.patch import BASIS, CONTENT, MANIFEST, TARGETS, WEIGHTS, Patch
from rasura.patches.format.patch_tensors import PatchTensors
from rasura.patches.format.protected_spec import BasisSpec, ProtectedSpec, RetainSpec
from rasura.patches.types import Digest, ParamName, PatchId

texts = st.text(st.characters(codec="utf-8"), max_size=12)
words = st.from_regex(r"[a-z0-9][a-z0-9._:+-]{0,11}", fullmatch=True)
hexes = st.text("0123456789abcdef", min_size=64, max_size=64)
digests = hexes.map(Digest)
ids = st.lists(hexes.map(PatchId), max_size=2).map(tuple)
decimals = st.from_regex(r"-?(0|[1-9][0-9]{0,3})(\.[0-9]{1,3})?(e[+-]?[0-9]{1,2})?", fullmatch=True)
tensors = st.builds(
    TensorIdentity,
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.]{0,20}", fullmatch=True).map(ParamName),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 1 << 20), max_size=3).map(tuple),
    digests,
)


def _name(tensor: TensorIdentity) -> str:
    return tensor.name


def _by_name(found: list[TensorIdentity]) -> tuple[TensorIdentity, ...]:
    return tuple(sorted(found, key=_name))


def _is_file_name(text: str) -> bool:
    return not set("/\\") & set(text)


@st.composite
def bases(draw: st.DrawFn) -> BasisSpec:
    dimension = draw(st.integers(1, 4096))
    ranks = draw(st.tuples(st.integers(0, dimension), st.integers(0, dimension)))
    return BasisSpec(draw(digests), dimension, *ranks, draw(words), draw(st.dictionaries(texts, decimals, max_size=2)))


manifests = st.builds(
    Manifest,
    st.builds(ConceptSpec, texts, texts, words, st.lists(texts, max_size=2).map(tuple)),
    st.builds(EraserSpec, words, st.dictionaries(texts, texts, max_size=2), st.none() | st.integers(0, 2**53 - 1)),
    st.builds(BaseSpec, digests, st.lists(tensors, max_size=2, unique_by=_name).map(_by_name), digests, digests),
    st.builds(
        ProtectedSpec,
        bases(),
        st.none() | st.builds(RetainSpec, texts.filter(_is_file_name), st.integers(0, 2**53 - 1), digests),
        st.lists(texts, max_size=2).map(tuple),
        ids.map(lambda found: tuple(sorted(set(found)))),
    ),
    st.lists(st.builds(TensorSpec, words.map(lambda w: w.replace(":", "").replace("+", "")), tensors), max_size=2).map(
        tuple
    ),
    st.dictionaries(texts, decimals, max_size=2),
    ids,
    ids,
    texts,
)


@given(manifests)
def test_manifests_read_back(manifest: Manifest) -> None:
    data = manifest.to_bytes()
    assert Manifest.from_bytes(data) == manifest
    assert Manifest.from_bytes(data).to_bytes() == data
    assert Manifest.from_bytes(data).patch_id == manifest.patch_id


@given(manifests, manifests)
@settings(max_examples=25)
def test_equal_manifests_have_equal_bytes_and_only_they(left: Manifest, right: Manifest) -> None:
    assert (left == right) == (left.to_bytes() == right.to_bytes()) == (left.patch_id == right.patch_id)


@given(manifests, manifests)
@settings(max_examples=25)
def test_every_field_is_in_the_identity(left: Manifest, right: Manifest) -> None:
    left = Manifest.from_bytes(left.to_bytes())  # what was read knows its identity, and what is made of it does not
    for field in (each for each in fields(Manifest) if each.init):
        mixed = replace(left, **{field.name: getattr(right, field.name)})
        assert (mixed.patch_id == left.patch_id) == (getattr(left, field.name) == getattr(right, field.name))


@given(manifests, st.data())
@settings(max_examples=150)
def test_a_changed_byte_never_gives_an_equal_manifest(manifest: Manifest, data: st.DataObject) -> None:
    good = manifest.to_bytes()
    at, flip = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(1, 255))
    bad = good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :]
    try:
        found = Manifest.from_bytes(bad)
    except VerificationError:
        return
    assert found != manifest
    assert found.to_bytes() == bad


@given(manifests, st.binary(max_size=3), st.data())
def test_bytes_cut_out_or_put_in_never_give_an_equal_manifest(
    manifest: Manifest, put: bytes, data: st.DataObject
) -> None:
    good = manifest.to_bytes()
    start = data.draw(st.integers(0, len(good)))
    stop = data.draw(st.integers(start, min(start + 3, len(good))))
    bad = good[:start] + put + good[stop:]
    if bad == good:
        return
    with contextlib.suppress(VerificationError):
        assert Manifest.from_bytes(bad) != manifest


@pytest.fixture(scope="module")
def patch() -> Patch:
    world = factories.World(width=24, retained=4, outs=(6, 8))
    return world.erase(world.columns("dog", 1, 2))[0]


def test_patch_files_read_back(patch: Patch) -> None:
    files = patch.files()
    again = Patch.from_files(files)
    assert again.files() == files
    assert again.patch_id == patch.patch_id
    assert set(files) == set(CONTENT)
    for name, increment in patch.tensors.increments.items():
        assert factories.same_bits(increment.A, again.tensors.increments[name].A)
        assert factories.same_bits(increment.B, again.tensors.increments[name].B)


@given(st.integers(0, 2**20), st.integers(1, 4), st.integers(2, 12), st.integers(1, 3))
@settings(max_examples=40)
def test_any_factors_read_back(seed: int, rank: int, width: int, rows: int) -> None:
    names = [ParamName(f"unet.{i}.attn2.to_v.weight") for i in range(3)]
    made = PatchTensors(
        {name: factories.increment(seed + i, 5 + i, width, rank) for i, name in enumerate(names)},
        factories.normal(seed, width, width).svd()[0][:1],
        factories.normal(seed, 1).abs(),
        factories.normal(seed, rows, width),
        factories.normal(seed + 1, rows, width),
    )
    again = PatchTensors.from_files(made.files())
    assert again.files() == made.files()
    assert again.specs() == made.specs()


@pytest.mark.parametrize("file", [WEIGHTS, BASIS, TARGETS, MANIFEST])
def test_any_changed_byte_of_any_file_is_refused_or_another_patch(patch: Patch, file: str) -> None:
    """In tensor files nothing else passes: the manifest names their content. A changed manifest is another patch."""
    files, chance = patch.files(), random.Random(file)
    places = [*range(min(64, len(files[file]))), *(chance.randrange(len(files[file])) for _ in range(60))]
    flips = (1, 0x20, 0x80)
    chosen = itertools.product(places, flips) if FULL else zip(places, itertools.cycle(flips), strict=False)
    for at, flip in chosen:
        data = bytearray(files[file])
        data[at] ^= flip
        try:
            found = Patch.from_files({**files, file: bytes(data)})
        except VerificationError:
            continue
        except AlgebraError:  # factors that fell off the grid
            assert file == WEIGHTS
            continue
        assert file == MANIFEST
        assert found.patch_id != patch.patch_id
