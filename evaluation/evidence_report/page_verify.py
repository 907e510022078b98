"""Of the page: how to check every line of it, step by step, each with the command to type."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from rasura.evaluation.evidence_report.html_text import escape as _e

__all__ = ["write_verify"]


def write_verify(document: Any) -> str:
    """The steps, and the root of the log to keep."""
    log = document["log"]
    steps = (*_check_page(document), *_check_change(document), *_check_model(document), *_check_measurements(document))
    listed = "".join(f'<li>{_e(text)}<pre tabindex="0">{_e(command)}</pre></li>' for text, command in steps)
    return (
        f"<ol>{listed}</ol><p>The record had {log['size']} entries when this was made; its seal (root) was "
        f'<span class="digest">{log["root"]}</span>. Keep it: a record that was rewritten later has another.</p>'
    )


def _check_page(document: Any) -> Iterator[tuple[str, str]]:
    """The page and its signed twin: with the key from elsewhere, with rasura, and without."""
    files, key = document["files"], document["log"]["vkey"]
    page, twin = shlex.quote(files["page"]), shlex.quote(files["twin"])
    yield (
        (
            "Get the record’s public key from the operator by another way than this file: a call, a letter, their web "
            "page. It must read:"
        ),
        key,
    )
    yield (
        (
            "With rasura (pip install rasura): every character of the page, every event in section 2 against its "
            "sealed entry, and the pictures."
        ),
        "\n".join(f"rasura verify {name} \\\n  --vkey '{key}'" for name in (page, twin)),
    )
    yield (
        (
            "Without rasura: take the entries out of the twin and check them with a script of a hundred lines that "
            "needs Python and the package “cryptography” (examples/verify_log.py in rasura’s sources)."
        ),
        (
            f"python3 -c \"import json; print(json.load(open({files['twin']!r}))['document']['log']['bundle'], "
            "end='')\" > entries.jsonl\n"
            f"python3 verify_log.py entries.jsonl '{key}'"
        ),
    )


def _check_change(document: Any) -> Iterator[tuple[str, str]]:
    """The first change, by its signature, with a tool that is not ours."""
    for patch in document["patches"][:1]:
        yield (
            "A change, with the public tool of the OpenSSF (pip install model-signing), from whoever has the registry:",
            (
                f"rasura patch export {patch['id'][:12]} -o change\n"
                f"model_signing verify key change --public_key {patch['signed_by'] or 'SIGNER'}.pem "
                "--signature change/model.sig"
            ),
        )


def _check_model(document: Any) -> Iterator[tuple[str, str]]:
    """The first model, by what its operator attests."""
    for place in document["places"][:1]:
        yield (
            (
                "A model, against what the operator attests of it (rasura attest); nothing of the operator’s is needed "
                "but the files and the public key:"
            ),
            (
                f"rasura verify --model {shlex.quote(place['model'])} \\\n"
                f"  --attestation {shlex.quote(place['model'] + '.intoto.json')} --key SIGNER.pem \\\n"
                f"  --vkey '{document['log']['vkey']}'"
            ),
        )


def _check_measurements(document: Any) -> Iterator[tuple[str, str]]:
    """The newest evaluation, answer by answer."""
    for each in document["evaluations"][:1]:
        yield (
            (
                "The measurements, with every single answer of the judge: signed, from whoever has the registry, and "
                "checked with nothing but the public keys:"
            ),
            "\n".join(
                (
                    f"rasura attest --evaluation {each['digest'][:12]} -o evaluation.intoto.json",
                    "rasura verify evaluation.intoto.json --key SIGNER.pem \\",
                    f"  --vkey '{document['log']['vkey']}'",
                )
            ),
        )
