"""Every parser of bytes that strangers write, fed with spoilt ones for a while; `make fuzz` does it.

    python tests/support/fuzzing.py [--seconds N] [--seed S] [--write PAGE]

What is spoilt are bytes and, where they are JSON, values under the same canonical spelling, so that it gets past the first
check; of a journal also its head, under a sum that fits. A parser may read what comes or refuse it as one of
`rasura.patches.errors`; anything else ends this with the bytes that did it. With `--write`, the table goes into a page.
"""

import argparse
import hashlib
import io
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rasura.patches._io import canonical_json
from rasura.patches._io.safetensors_file import Limits, read_header
from rasura.patches.checks.policy import DEFAULT_POLICY, Policy
from rasura.patches.errors import RasuraError
from rasura.patches.format.bundle_file import BundleFiles, decode_bundle, encode_bundle
from rasura.patches.format.manifest import Manifest
from rasura.patches.format.signatures.dsse_envelope import open_envelope, sign_envelope
from rasura.patches.format.signatures.model_signature import read_statement, sign
from rasura.patches.format.signatures.signing_key import PrivateKey, PublicKey
from rasura.patches.hosts.disk.journal.journal_record import RangeChange, Record, encode_head, read_record
from rasura.patches.hosts.disk.weight_files import FileIdentity
from rasura.patches.lists.read_list import read_list
from rasura.patches.lists.role import TEMPLATES
from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.config import Config
from rasura.registry._storage.records.records import Draft
from rasura.registry.evidence.proofs.log_bundle import read_log_bundle
from rasura.registry.evidence.proofs.proof_file import EntryProof
from rasura.registry.evidence.proofs.take_out import export_bundle, export_checkpoint, prove_entry
from rasura.registry.log.entries.entry import Placement, decode, encode
from rasura.registry.log.notes.signed_note import Checkpoint, VerifyKey, parse_note
from rasura.registry.registry import Registry
from rasura.registry.stacks.lock_file import LockFile
from rasura.registry.stacks.plan_file import Plan
from rasura.registry.takedown.wanted_file import read_wanted
from rasura.registry.trust.keys.remote_keys import read_uri
from rasura.registry.trust.roles.signed_trust import SignedTrust
from rasura.registry.trust.roles.trust_policy import POLICY, TrustedKey, TrustPolicy

VECTORS: Final = Path(__file__).parents[1] / "vectors"
MARK: Final = "<!-- table: fuzz -->"
_ODD: Final = (
    b"",
    b"\0",
    b"\xff",
    b'"',
    b"{",
    b"}",
    b"[" * 300,
    b"1e999",
    b"-1",
    b"9" * 400,
    b"null",
    b"\\ud800",
    b"\n",
    b"NaN",
)
_VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    -1,
    0,
    2**53 - 1,
    "",
    "x" * 5000,
    "../x",
    "\u202e",
    [],
    {},
    [[]],
    {"": 0},
    "0" * 64,
)


@dataclass(frozen=True, slots=True)
class Target:
    """A parser, and bytes that it reads."""

    name: str
    seed: bytes
    parse: Callable[[bytes], object]


def list_targets(place: Path) -> list[Target]:
    """All parsers; those that read files get them in a folder of their own."""
    key = PrivateKey.generate()
    digest = Digest("0" * 64)
    with Registry.create(place / "registry") as registry:
        for number in range(5):
            registry.note(Draft("alice", "why", "test.append", "success", details={"number": number}))
        note, proof = export_checkpoint(registry), prove_entry(registry, 3)
        lines, vkey, origin = b"".join(export_bundle(registry)), registry.log_vkey(), registry.origin
    entry = encode(
        Draft("alice", "why", "patch.apply", "success", patches=(PatchId(digest),), base=digest),
        Placement(origin, 0, "0" * 8 + "-0000-4000-8000-" + "0" * 12, datetime(2026, 11, 29, tzinfo=UTC)),
        actor=key,
    )
    person = TrustedKey(key.public, "alice", (POLICY,), ("dog*",), (digest,))
    policy = TrustPolicy(origin, 1, datetime(2100, 1, 1, tzinfo=UTC), 1, (person,), ())
    change = RangeChange("unet/model.safetensors", 8, 16, digest, digest, "")
    journal = encode_head(Record({change.file: FileIdentity(32, 8, digest)}, (change,)))
    folder = next(path for path in sorted((VECTORS / "patch_v2").rglob("manifest.json"))).parent
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix}
    bundle = encode_bundle(
        BundleFiles({PatchId(hashlib.sha256(files["manifest.json"]).hexdigest()): files}, {}, {}, None, {})
    )

    def at(name: str, parse: Callable[[Path], object]) -> Callable[[bytes], object]:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)

        def write(data: bytes) -> object:
            path.write_bytes(data)
            return parse(path)

        return write

    def summed(head: bytes) -> bytes:
        prefix = journal[:16] + len(head).to_bytes(8, "little") + head
        return prefix + hashlib.sha256(prefix).digest()

    read_journal = at("model/.rasura-host/journal", read_record)
    tensors = files["pytorch_lora_weights.safetensors"]
    return [
        Target("canonical JSON", b'{"a":[1,"x",null]}', lambda d: canonical_json.loads(d, what="x", limit=10**6)),
        Target("safetensors header", tensors, lambda d: read_header(io.BytesIO(d), len(d), what="x", limits=Limits())),
        Target("manifest", files["manifest.json"], Manifest.from_bytes),
        Target("model.sig", sign(files, name="x", key=key), lambda d: read_statement(d, [key.public])),
        Target("attestation", sign_envelope(b"{}", key), lambda d: open_envelope(d, [key.public])),
        Target("bundle of patches", bundle, lambda d: decode_bundle(d, "x")),
        Target("lock file", (VECTORS / "rasura.lock").read_bytes(), LockFile.from_bytes),
        Target("plan", (VECTORS / "plan.json").read_bytes(), Plan.from_bytes),
        Target("trust policy", policy.to_payload(), TrustPolicy.from_payload),
        Target("signed trust policy", SignedTrust.unsigned(policy).signed_by(key).to_bytes(), SignedTrust.parse),
        Target("policy", DEFAULT_POLICY.to_toml(whole=True).encode(), Policy.parse),
        Target("entry of the log", entry, lambda d: decode(d, None)),
        Target("signed note", note, parse_note),
        Target(
            "checkpoint", note.partition(b"\n\n")[0] + b"\n", lambda d: Checkpoint.parse(d.decode("utf-8", "replace"))
        ),
        Target("key of a log", vkey.encode(), lambda d: VerifyKey.parse(d.decode("utf-8", "replace"))),
        Target("proof of an entry", proof, EntryProof.parse),
        Target(
            "bundle of entries",
            lines,
            lambda d: list(read_log_bundle(io.BytesIO(d), vkey=VerifyKey.parse(vkey)).entries()),
        ),
        Target("public key", key.public.pem.encode(), PublicKey.load),
        Target("private key", key.pem(), PrivateKey.load),
        Target("URI of a key", b"hsm:2?label=office\n", at("x.signer.uri", read_uri)),
        Target(
            "config.toml", b'[defaults]\nkey = "alice"\n', at("defaults/config.toml", lambda p: Config.read(p.parent))
        ),
        Target("journal", journal, read_journal),
        Target("head of a journal", journal[24:-32], lambda d: read_journal(summed(d))),
        Target("list, text", b"a {}\n# b\nthe {}\n", at("list.txt", lambda p: read_list(p, TEMPLATES))),
        Target("list, CSV", b"id,text\n1,a {}\n2,the {}\n", at("list.csv", lambda p: read_list(p, TEMPLATES, "text"))),
        Target(
            "list, JSON",
            b'[{"text": "a {}"}, {"text": "the {}"}]',
            at("list.json", lambda p: read_list(p, TEMPLATES, "text")),
        ),
        Target("takedowns, YAML", b"- concept: dog\n  anchor: cat\n", at("wanted.yaml", read_wanted)),
    ]


def spoil(data: bytes, chance: random.Random) -> bytes:
    """The same with something wrong, or nothing."""
    if chance.random() < 0.5:
        try:
            return canonical_json.dumps(_spoil_value(json.loads(data), chance))
        except (ValueError, RasuraError, RecursionError):
            pass
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(data) + 1)
        odd = chance.choice((*_ODD, data[at : at + 8], chance.randbytes(chance.randint(1, 8))))
        data = data[:at] + odd + data[at + chance.choice((0, 0, len(odd), 1)) :]
    return data[: chance.randrange(len(data) + 1)] if chance.random() < 0.1 else data


def _spoil_value(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict) and value and chance.random() < 0.9:
        name = chance.choice(list(value))
        if chance.random() < 0.2:
            return {**{k: v for k, v in value.items() if k != name}, **({"odd": 1} if chance.random() < 0.5 else {})}
        return {**value, name: _spoil_value(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        at = chance.randrange(len(value))
        return [*value[:at], _spoil_value(value[at], chance), *value[at + chance.choice((0, 1)) :]]
    return chance.choice(_VALUES)


def run(target: Target, seconds: float, chance: random.Random) -> tuple[int, int]:
    """How many were fed, and how many of them were read.

    Raises:
        AssertionError: the parser raised something else than an error of ours, or does not read its own seed.
    """
    target.parse(target.seed)
    fed = read = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        data = spoil(target.seed, chance)
        fed += 1
        try:
            target.parse(data)
            read += 1
        except RasuraError:
            continue
        except Exception as error:
            raise AssertionError(f"{target.name}: {type(error).__name__}: {error} of {data[:2000]!r}") from error
    return fed, read


def main() -> None:
    """Feed all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--write", type=Path, metavar="PAGE")
    chosen = parser.parse_args()
    rows = [f"| parser | spoilt inputs in {chosen.seconds:g} s | of these read |", "|---|---:|---:|"]
    sys.stderr.write(f"to see this again: --seconds {chosen.seconds:g} --seed {chosen.seed}\n")
    with tempfile.TemporaryDirectory() as place:
        for target in list_targets(Path(place)):
            fed, read = run(target, chosen.seconds, random.Random(f"{target.name} {chosen.seed}"))
            rows.append(f"| {target.name} | {fed} | {read} |")
            sys.stdout.write(f"{rows[-1]}\n")
            sys.stdout.flush()
    if chosen.write is not None:
        table = "\n".join(rows)
        found = re.compile(re.escape(MARK) + r"\n(\n(\|.*\n)+)?")
        page, count = found.subn(lambda _: f"{MARK}\n\n{table}\n", chosen.write.read_text(encoding="utf-8"))
        assert count == 1, f"{chosen.write} has no {MARK}"
        chosen.write.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
