"""The SPDX document of a patched model, as SPDX's own model of itself reads it."""

import io
from typing import Any

import pytest

from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.types import Digest, ParamName, PatchId
from rasura.registry.evidence.attestations.model_statement import ModelStatement, StatedParameter, StatedPatch
from rasura.registry.evidence.attestations.spdx_document import write_spdx

DOG, PHOTO = PatchId("d" * 64), PatchId("f" * 64)
STATEMENT = ModelStatement(
    files={"unet/a.safetensors": Digest("a" * 64), "model_index.json": Digest("b" * 64)},
    base=Digest("c" * 64),
    base_name="small",
    patches=(StatedPatch(DOG, ("dog", "puppy"), ONE, "e" * 64), StatedPatch(PHOTO, ("photo",), Strength(8), "e" * 64)),
    touched=(StatedParameter(ParamName("unet.x"), "F16", (2, 3), Digest("1" * 64)),),
    compared=5,
    record="{}",
    proof="",
    time="2026-11-29T12:00:00.123456Z",
)


def test_the_model_of_spdx_reads_it_and_finds_what_the_ai_profile_asks_for() -> None:
    spdx: Any = pytest.importorskip("spdx_python_model.bindings.v3_0_1", reason="needs spdx-python-model")
    data = write_spdx(STATEMENT, name="model", version="1")
    assert data == write_spdx(STATEMENT, name="model", version="1")
    found = spdx.SHACLObjectSet()
    spdx.JSONLDDeserializer().read(io.BytesIO(data), found)
    assert found.link() == set()  # nothing refers to what is not there
    packages = {each.name: each for each in found.foreach_type(spdx.ai_AIPackage)}
    assert set(packages) == {"model", "small"}
    links: dict[str, list[Any]] = {}
    for each in found.foreach_type(spdx.Relationship):
        links.setdefault(each.relationshipType.rpartition("/")[2], []).append(each)
    (patched,), (contains,), (ancestor,) = links["patchedBy"], links["contains"], links["ancestorOf"]
    assert {each.name for each in patched.to} == {f"patch {DOG}", f"patch {PHOTO}"}
    assert {each.summary for each in patched.to} == {"suppresses dog, puppy", "suppresses photo"}
    assert patched.from_ is contains.from_ is ancestor.to[0] is packages["model"]
    assert {each.name: each.verifiedUsing[0].hashValue for each in contains.to} == dict(STATEMENT.files)
    for kind in ("hasDeclaredLicense", "hasConcludedLicense"):
        assert {each.from_ for each in links[kind]} == set(packages.values())
        assert {str(each.to[0]).rpartition("/")[2] for each in links[kind]} == {"NoAssertionLicense"}
