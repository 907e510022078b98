"""Check a bundle or a proof of a rasura log, with none of rasura: `python verify_log.py FILE VKEY`.

VKEY is the log's public key, from somebody who kept it, or an older one that handed the log on. Needs Python 3.11 and
`pip install cryptography`. What is checked: the Ed25519 signature under the checkpoint (C2SP signed note), that every
entry is a leaf of the tree whose root it signs (RFC 9162 §2.1), or, of a whole log, that the entries give that root,
and where the log was handed on, that both keys signed it there. Prints one line an entry.
"""

import base64
import hashlib
import json
import pathlib
import sys
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def check(good: bool, message: str) -> None:
    """Stop with a message where something is not good."""
    if not good:
        raise ValueError(message)


def sha256(*parts: bytes) -> bytes:
    """Of the parts one after the other."""
    return hashlib.sha256(b"".join(parts)).digest()


def decode(text: str) -> bytes:
    """Base64 in its one canonical spelling."""
    data = base64.b64decode(text, validate=True)
    check(base64.b64encode(data).decode() == text, "base64 in another spelling")
    return data


def open_note(note: str, vkey: str) -> tuple[str, int, bytes]:
    """Origin, size and root of a checkpoint that the key signed."""
    name, _, rest = vkey.partition("+")
    key_id, _, encoded = rest.partition("+")
    typed = decode(encoded)
    check(typed[:1] == b"\x01" and len(typed) == 33, "the key is not Ed25519")
    check(sha256(name.encode(), b"\n", typed)[:4].hex() == key_id, "the key's id is not its own")
    text, _, signatures = note.rpartition("\n\n")
    text += "\n"
    check(signatures.endswith("\n"), "the last signature is cut")
    for line in signatures[:-1].split("\n"):
        dash, signer, value = line.split(" ")
        raw = decode(value)
        if dash == "\N{EM DASH}" and signer == name and raw[:4].hex() == key_id:
            try:
                Ed25519PublicKey.from_public_bytes(typed[1:]).verify(raw[4:], text.encode())
            except InvalidSignature:
                raise ValueError("the checkpoint's signature is not the key's") from None
            break
    else:
        raise ValueError("the checkpoint is not signed by the key")
    origin, size, root, end = text.split("\n")
    check(origin == name and end == "" and size == str(int(size)), "the checkpoint is of another log")
    return origin, int(size), decode(root)


def root_of(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """RFC 9162 §2.1.3.2: the root that a leaf and its siblings give."""
    check(0 <= index < size, "the entry lies outside the tree")
    node, last, here = index, size - 1, leaf
    for sibling in path:
        check(last > 0, "the proof is too long")
        if node & 1 or node == last:
            here = sha256(b"\x01", sibling, here)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            here = sha256(b"\x01", here, sibling)
        node, last = node >> 1, last >> 1
    check(last == 0, "the proof is too short")
    return here


def continues(old: int, size: int, before: bytes, root: bytes, proof: list[bytes]) -> bool:
    """RFC 9162 §2.1.4.2: whether the tree of `old` leaves is the beginning of the one of `size`."""
    if old == size:
        return not proof and before == root
    path = [before, *proof] if old & (old - 1) == 0 else proof
    check(0 < old < size and bool(path), "no consistency proof is like that")
    node, last = old - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    left = here = path[0]
    for sibling in path[1:]:
        check(last > 0, "the proof is too long")
        if node & 1 or node == last:
            left, here = sha256(b"\x01", sibling, left), sha256(b"\x01", sibling, here)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            here = sha256(b"\x01", here, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and (left, here) == (before, root)


def open_head(note: str, links: list[dict[str, Any]], vkey: str) -> tuple[str, int, bytes]:
    """The checkpoint, signed by the key or by the one to which it led; every link is signed by both its keys."""
    keys: list[str] = []
    trees: list[tuple[int, bytes, list[bytes]]] = []
    for link in links:
        entry, leaf = json.loads(link["entry"]), sha256(b"\x00", link["entry"].encode())
        old, new = entry["details"]["old"], entry["details"]["new"]
        tree = open_note(link["checkpoint"], old)
        check(entry["type"] == "log.rotate" and entry["outcome"]["status"] == "success", "the entry hands nothing on")
        check(open_note(link["checkpoint"], new) == tree and old != new, "the two keys did not sign the same")
        check((tree[0], tree[1]) == (entry["log"], entry["index"] + 1), "the link is not of its own entry")
        check(root_of(leaf, tree[1] - 1, tree[1], list(map(decode, link["proof"]))) == tree[2], "the link's proof")
        check(not keys or (old == keys[-1] and tree[1] > trees[-1][0]), "the links are no chain")
        keys += [new] if keys else [old, new]
        trees.append((tree[1], tree[2], list(map(decode, link["consistency"]))))
    check(not keys or vkey in keys, "the key is none of the log's")
    origin, size, root = open_note(note, keys[-1] if keys else vkey)
    for old_size, before, proof in trees:
        check(continues(old_size, size, before, root, proof), "the log does not continue its links")
    return origin, size, root


def root_of_all(leaves: list[bytes]) -> bytes:
    """RFC 9162 §2.1.1: the root over leaf hashes."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01", root_of_all(leaves[:split]), root_of_all(leaves[split:]))


def verify(data: bytes, vkey: str) -> list[dict[str, Any]]:
    """The entries of the file, all of them proved."""
    text = data.decode()
    if text.startswith("c2sp.org/tlog-proof@v1\n"):
        above, _, note = text.partition("\n\n")
        _, extra, index, *path = above.split("\n")
        check(extra.startswith("extra "), "the entry's bytes are missing")
        body, newline, beside = decode(extra.removeprefix("extra ")).decode().partition("\n")
        lines: list[dict[str, Any]] = [{"entry": body, "proof": path}]
        links = json.loads(beside)["links"] if newline else []
        check(index == f"index {json.loads(lines[0]['entry'])['index']}", "another entry")
        head: dict[str, Any] = {"whole": False, "entries": 1, "records": 0}
    else:
        check(text.endswith("\n"), "the last line is cut")
        first, *rest = [json.loads(line) for line in text[:-1].split("\n")]
        head, note, lines = first, first["checkpoint"], rest[first["records"] :]
        links = head.get("links", [])
        check(head["format"] == "rasura-log/1", "another format")
        check(links or head["vkey"] == vkey, "a log of another key")
        check(not links or json.loads(links[-1]["entry"])["details"]["new"] == head["vkey"], "a log of another key")
        records = {sha256(r["record"].encode()).hex(): (r["kind"], r["id"]) for r in rest[: first["records"]]}
        told = {c.get("record"): (c["kind"], c["id"]) for e in lines for c in json.loads(e["entry"])["changes"]}
        check(all(told.get(digest) == name for digest, name in records.items()), "a record that no entry tells of")
    origin, size, root = open_head(note, links, vkey)
    check(len(lines) == head["entries"], "entries are missing, or there are more")
    leaves = [sha256(b"\x00", line["entry"].encode()) for line in lines]
    entries = [json.loads(line["entry"]) for line in lines]
    check(all(entry["log"] == origin for entry in entries), "an entry of another log")
    if head["whole"]:
        check(len(leaves) == size and root_of_all(leaves) == root, "these entries are not those that were signed")
        check([entry["index"] for entry in entries] == list(range(size)), "an entry is not in its place")
    for entry, line, leaf in zip(entries, lines, leaves, strict=True):
        if not head["whole"]:
            siblings = [decode(each) for each in line["proof"]]
            check(root_of(leaf, entry["index"], size, siblings) == root, f"entry {entry['index']} is not in the log")
    return entries


if __name__ == "__main__":
    found = verify(pathlib.Path(sys.argv[1]).read_bytes(), sys.argv[2])
    for entry in found:
        print(entry["index"], entry["time"], entry["actor"]["name"], entry["type"], entry["outcome"]["status"])
    print(f"sound: {len(found)} entries")
