"""A patched model as a CycloneDX 1.7 bill of materials: the model, what it descends from, and its patches.

https://cyclonedx.org/docs/1.7/json/: a component of the type machine-learning-model, with its base as `ancestors` and
each patch as one of `patches` in its pedigree. It is a description, unsigned; the attestation is what proves.
"""

from __future__ import annotations

import uuid
from typing import Final

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import JsonValue
from rasura.registry.evidence.attestations.model_statement import ModelStatement, StatedPatch

__all__ = ["write_bill"]

_SPACE: Final = uuid.UUID("6f0c39c4-6b0c-5a7e-9d53-b8b2b7b0a9b4")
"""Of the serial numbers: the same statement gives the same bill."""


def write_bill(statement: ModelStatement, *, name: str, version: str) -> bytes:
    """The bill's RFC 8785 JSON.

    Args:
        statement: what the model is.
        name: what to call it.
        version: of rasura, which wrote this.
    """
    payload = statement.to_payload()
    files: list[JsonValue] = [
        {"type": "file", "name": path, "hashes": [{"alg": "SHA-256", "content": digest}]}
        for path, digest in sorted(statement.files.items())
    ]
    model: dict[str, JsonValue] = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": name,
        "pedigree": {
            "ancestors": [
                {
                    "type": "machine-learning-model",
                    "bom-ref": "base",
                    "name": statement.base_name,
                    "properties": [{"name": "rasura:tensor-set", "value": statement.base}],
                }
            ],
            "patches": [{"type": "unofficial", "resolves": [_resolved(patch)]} for patch in statement.patches],
            "notes": f"{len(statement.patches)} patches over {len(statement.touched)} parameters",
        },
        "properties": [
            {"name": f"rasura:parameter:{p.name}", "value": f"{p.dtype} sha256:{p.sha256}"} for p in statement.touched
        ],
        "components": files,
    }
    return canonical_json.dumps(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.7",
            "serialNumber": f"urn:uuid:{uuid.uuid5(_SPACE, payload.decode())}",
            "version": 1,
            "metadata": {
                "timestamp": statement.time,
                "component": model,
                "tools": {"components": [{"type": "application", "name": "rasura", "version": version}]},
            },
        }
    )


def _resolved(patch: StatedPatch) -> JsonValue:
    """What a patch is for, in the words that the format has for it."""
    return {
        "type": "security",
        "id": str(patch.patch_id),
        "name": f"suppresses {', '.join(patch.concepts)}",
        "description": f"strength {patch.strength}, signed by key {patch.signer}",
    }
