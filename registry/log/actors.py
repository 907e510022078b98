"""Who acts, as entries say it: a claim, or signed by their key (`rasura.registry.log.entries.entry`).

An entry's signature counts if the log tells of its key before, trusts it then, and the signature is over this entry.
Where a policy asks for it, its entry says so (detail `actor_signature` of `policy.set`), and from then on until another
policy is put in force everything that happens must be signed. Making a key need not be, so that a person who has none
yet, or lost theirs, can begin; nor bringing the registry up to date, nor what was refused or failed.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Final, NoReturn

from rasura.patches.errors import InputError, RasuraError, SignatureError
from rasura.patches.types import SHORT, KeyId
from rasura.registry.log.entries.entry import ACTOR_TYPE, split_actor

if TYPE_CHECKING:
    from rasura.registry._storage.records.records import Outcome
    from rasura.registry.log.entries.entry_parts import Deed

__all__ = ["ASKED", "REQUIRED", "Actors", "must_be_signed", "refuse_unsigned", "verify_actor"]

ASKED: Final = "actor_signature"
REQUIRED: Final = "required"
_SET: Final = "policy.set"
_FREE: Final = frozenset({"registry.create", "registry.upgrade", "key.add"})
_NOTHING: Final = frozenset({"refused", "failed"})


def must_be_signed(action: str, outcome: Outcome = "success") -> bool:
    """Whether an entry needs its actor's signature where the policy in force asks for them."""
    return outcome not in _NOTHING and action not in _FREE


def refuse_unsigned() -> NoReturn:
    """Say that the policy in force asks for a signature and there is no key.

    Raises:
        InputError: always.
    """
    raise InputError(
        "the policy in force asks for the signature of who acts: expected a key of theirs, got none",
        hint="--actor-key NAME",
    )


def verify_actor(body: bytes, pems: Mapping[KeyId, str]) -> KeyId | None:
    """The key whose signature an entry carries, if it is good; None of one that carries none.

    Args:
        body: the entry's bytes, which `rasura.registry.log.entries.entry.decode` has read.
        pems: the keys that are known.

    Raises:
        SignatureError: by a key that is not known, or not over these bytes.
    """
    found = split_actor(body)
    if found is None:
        return None
    from rasura.patches.format.signatures.dsse_envelope import check_signature  # needs cryptography, as below
    from rasura.patches.format.signatures.signing_key import PublicKey

    key_id, payload, signature = found
    if key_id not in pems:
        raise SignatureError(f"actor: expected a key that is known here, got {key_id[:SHORT]}", key_id=key_id)
    key = PublicKey.load(pems[key_id])
    if key.key_id != key_id:
        raise SignatureError(f"actor: expected the key {key_id[:SHORT]} under its own id, got {key.key_id[:SHORT]}")
    check_signature(key, payload, signature, "actor", ACTOR_TYPE)
    return key_id


class Actors:
    """Whether entries, one after the other, carry the signatures that they must, each by a key that counts then."""

    def __init__(self, pems: Mapping[KeyId, str]) -> None:
        self.signed = 0
        """Entries that carry a good signature of who acted."""
        self._pems = pems
        self._asked = False

    def follow(self, entry: Deed, body: bytes | None, trusted: Container[str]) -> str | None:
        """Go on by one entry.

        Args:
            entry: what it says.
            body: its bytes; None where their form has no signature.
            trusted: the keys that counted before it.

        Returns:
            What is wrong with it; None of a good one.
        """
        try:
            key_id = None if body is None else verify_actor(body, self._pems)
        except RasuraError as error:
            return error.message
        if key_id is not None and key_id not in trusted:
            return f"it is signed by key {key_id[:SHORT]}, which was not trusted then"
        if key_id is None and self._asked and must_be_signed(entry.action, entry.outcome):
            return "the policy then asked for the signature of who acts, and it has none"
        self.signed += key_id is not None
        if entry.action == _SET and entry.outcome == "success":
            self._asked = entry.details.get(ASKED) == REQUIRED
        return None
