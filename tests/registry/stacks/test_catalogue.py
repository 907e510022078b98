"""The list of patches, a page at a time: what is on a page, and that it says what reading everything says."""

import random
import sqlite3
import stat
from contextlib import closing

import pytest
from support.registries.manifest_patches import with_manifest
from support.registries.registry_fixtures import Place, base, draft

from rasura.patches.errors import NotFoundError
from rasura.patches.types import PatchId
from rasura.registry.registry import Registry
from rasura.registry.stacks.versions import Versions
from rasura.registry.standing.catalogue import Listed, PatchFilter, list_patches
from rasura.registry.standing.successors import Lineage, find_successors

COUNT = 23


@pytest.fixture
def crowd(made: Place) -> tuple[Place, list[PatchId]]:
    """Patches of which each supersedes up to two earlier ones, some of another base; the oldest first."""
    chance = random.Random(7)
    with made.open() as registry:
        registry.add_base(base(), draft("base.add"))
        registry.add_base(base("sd15"), draft("base.add"))
        known: list[PatchId] = []
        for number in range(COUNT):
            old = chance.sample(known, min(len(known), chance.choice([0, 0, 1, 2])))
            at = base("sd15" if number % 5 == 0 else "sd14").digest
            known.append(with_manifest(registry, f"thing {number}", *old, base_digest=at, age=number // 2))
        listed = [record.patch_id for record in registry.patches()]
    return made, listed


def expected(registry: Registry) -> dict[PatchId, PatchId]:
    """What the manifests of all patches say, read anew."""
    found: dict[PatchId, PatchId] = {}
    for each in ("sd14", "sd15"):
        versions = Versions.of(registry, base(each).digest)
        found |= {old: versions.newest(old) for old in versions.records if versions.newest(old) != old}
    return found


def test_pages_are_the_list_cut_into_pieces(crowd: tuple[Place, list[PatchId]]) -> None:
    place, ids = crowd
    with place.open() as registry:
        whole, more = list_patches(registry, PatchFilter())
        assert ([each.record.patch_id for each in whole], more) == (ids, False)
        assert all(each.ticket == "because" for each in whole)
        for size in (1, 2, 5, COUNT - 1, COUNT, COUNT + 1):
            before: PatchId | None = None
            got: list[Listed] = []
            while True:
                page, more = list_patches(registry, PatchFilter(), limit=size, before=before)
                assert len(page) == min(size, COUNT - len(got))
                got[:0] = page
                if not more:
                    break
                before = page[0].record.patch_id
            assert got == list(whole)
        with pytest.raises(NotFoundError):
            list_patches(registry, PatchFilter(), limit=3, before="f" * 64)


def test_a_page_of_a_choice_has_its_size(crowd: tuple[Place, list[PatchId]]) -> None:
    with crowd[0].open() as registry:
        for choice in (
            PatchFilter(superseded=True),
            PatchFilter(current=True),
            PatchFilter(base="sd15"),
            PatchFilter(concept="thing 3"),
        ):
            whole, _ = list_patches(registry, choice)
            page, more = list_patches(registry, choice, limit=2)
            assert (page, more) == (whole[-2:], len(whole) > 2)
            assert whole


def test_what_supersedes_what_is_what_the_manifests_say(crowd: tuple[Place, list[PatchId]]) -> None:
    with crowd[0].open() as registry:
        for _ in range(2):  # found out, then remembered
            assert dict(find_successors(registry, registry.patches())) == expected(registry)
            with Lineage(registry) as lineage:
                assert dict(lineage.all_successors()) == expected(registry)
        first = registry.patches()[0]
        new = with_manifest(registry, "later", first.patch_id, base_digest=first.base, age=99)
        assert find_successors(registry, [first])[first.patch_id] == new
        with Lineage(registry) as lineage:
            assert dict(lineage.all_successors()) == expected(registry)
        assert dict(find_successors(registry, registry.patches())) == expected(registry)


def test_a_memory_that_is_gone_spoilt_or_locked_is_found_out_anew(crowd: tuple[Place, list[PatchId]]) -> None:
    path = crowd[0].folder / "keys" / "superseding"
    with crowd[0].open() as registry:
        right = expected(registry)
        assert dict(find_successors(registry, registry.patches())) == right
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.write_bytes(b"no database")
        assert dict(find_successors(registry, registry.patches())) == right
        path.unlink()
        assert dict(find_successors(registry, registry.patches())) == right
        with closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert dict(find_successors(registry, registry.patches())) == right
        path.unlink()
        path.mkdir()
        assert dict(find_successors(registry, registry.patches())) == right
