"""A patched model as an SPDX 3.0.1 document with the AI profile: the model, its base, its patches and its files.

https://spdx.github.io/spdx-spec/v3.0.1/, as JSON-LD. The model is an `ai_AIPackage`, a descendant of its base and
patched by a file for each patch. Nothing is known here of licences: both relationships that the profile asks for say
so. Like the bill of materials it is a description, unsigned; the attestation is what proves.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import JsonValue
from rasura.registry._storage.records.validation import from_instant
from rasura.registry.evidence.attestations.model_statement import MEANS, ModelStatement, StatedPatch

__all__ = ["write_spdx"]

_CONTEXT: Final = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
_VERSION: Final = "3.0.1"
_NO_LICENCE: Final = "expandedlicensing_NoAssertionLicense"
_INFO: Final = "_:creation"
_SPACE: Final = uuid.UUID("b0f4a2f6-3d0c-5a0e-8f3e-6a4b7f0f6d11")
"""Of the identifiers: the same statement gives the same document."""


def write_spdx(statement: ModelStatement, *, name: str, version: str) -> bytes:
    """The document's RFC 8785 JSON.

    Args:
        statement: what the model is.
        name: what to call it.
        version: of rasura, which wrote this.
    """
    space = f"urn:uuid:{uuid.uuid5(_SPACE, statement.to_payload().decode())}"
    graph: list[JsonValue] = [
        {
            "type": "CreationInfo",
            "@id": _INFO,
            "specVersion": _VERSION,
            "created": _second(statement.time),
            "createdBy": [f"{space}#writer"],
        },
        {**_element("SoftwareAgent", f"{space}#writer"), "name": f"rasura {version}"},
        {
            **_element("SpdxDocument", space),
            "profileConformance": ["core", "software", "ai"],
            "rootElement": [f"{space}#bill"],
        },
        {
            **_element("software_Sbom", f"{space}#bill"),
            "profileConformance": ["core", "software", "ai"],
            "rootElement": [f"{space}#model"],
            "software_sbomType": ["analyzed"],
        },
        *_describe(statement, space, name),
    ]
    return canonical_json.dumps({"@context": _CONTEXT, "@graph": graph})


def _describe(statement: ModelStatement, space: str, name: str) -> Iterator[JsonValue]:
    model, base = f"{space}#model", f"{space}#base"
    yield {
        **_element("ai_AIPackage", model),
        "name": name,
        "software_primaryPurpose": "model",
        "software_packageVersion": f"{statement.base_name} with {len(statement.patches)} patches",
        "ai_limitation": MEANS,
        "ai_hyperparameter": [
            {"type": "DictionaryEntry", "key": f"rasura:parameter:{p.name}", "value": f"{p.dtype} sha256:{p.sha256}"}
            for p in statement.touched
        ],
    }
    yield {
        **_element("ai_AIPackage", base),
        "name": statement.base_name,
        "software_primaryPurpose": "model",
        "comment": f"tensor set {statement.base}",
    }
    for at, package in enumerate((model, base)):
        for kind in ("hasDeclaredLicense", "hasConcludedLicense"):
            yield _relate(f"{space}#{kind}-{at}", package, kind, [_NO_LICENCE])
    yield _relate(f"{space}#descent", base, "ancestorOf", [model])
    files = [f"{space}#file-{at}" for at in range(len(statement.files))]
    for place, (path, digest) in zip(files, sorted(statement.files.items()), strict=True):
        yield {**_element("software_File", place), "name": path, "verifiedUsing": [_hash(digest)]}
    yield _relate(f"{space}#files", model, "contains", list(files))
    patches = [f"{space}#patch-{at}" for at in range(len(statement.patches))]
    yield from map(_describe_patch, patches, statement.patches)
    if patches:
        yield _relate(f"{space}#patches", model, "patchedBy", patches)


def _describe_patch(place: str, patch: StatedPatch) -> JsonValue:
    return {
        **_element("software_File", place),
        "name": f"patch {patch.patch_id}",
        "software_primaryPurpose": "patch",
        "summary": f"suppresses {', '.join(patch.concepts)}",
        "comment": f"strength {patch.strength}, signed by key {patch.signer}; the hash is of its manifest",
        "verifiedUsing": [_hash(patch.patch_id)],
    }


def _element(kind: str, place: str) -> dict[str, JsonValue]:
    return {"type": kind, "spdxId": place, "creationInfo": _INFO}


def _relate(place: str, start: str, kind: str, ends: Sequence[str]) -> JsonValue:
    return {**_element("Relationship", place), "from": start, "relationshipType": kind, "to": list(ends)}


def _hash(digest: str) -> JsonValue:
    return {"type": "Hash", "algorithm": "sha256", "hashValue": digest}


def _second(time: str) -> str:
    """As SPDX writes times: to the second, in UTC."""
    moment = from_instant(time)
    return f"{moment - timedelta(microseconds=moment.microsecond):%Y-%m-%dT%H:%M:%SZ}"
