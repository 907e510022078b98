"""A trust policy with the signatures over it, and whether it follows the one in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rasura.patches._io.json_fields import show
from rasura.patches.errors import SignatureError
from rasura.patches.format.signatures.dsse_envelope import check_signature, encode_joined, join_signature, read_joined
from rasura.patches.format.signatures.signing_key import SigningKey
from rasura.patches.types import Digest, KeyId
from rasura.registry._storage.digests import sha256
from rasura.registry.trust.roles.policy_toml import WHAT
from rasura.registry.trust.roles.trust_policy import MAX_TRUST_BYTES, PAYLOAD_TYPE, POLICY, TrustedKey, TrustPolicy

__all__ = ["SignedTrust", "check_next"]


@dataclass(frozen=True, slots=True)
class SignedTrust:
    """A trust policy and the signatures over it; whose they are is what the envelope says until `check_next`."""

    policy: TrustPolicy
    payload: bytes
    signatures: Mapping[KeyId, bytes]

    @classmethod
    def parse(cls, data: bytes) -> SignedTrust:
        """Read the file.

        Raises:
            FormatError: no envelope of a trust policy.
        """
        payload, signatures = read_joined(data, PAYLOAD_TYPE, WHAT, limit=MAX_TRUST_BYTES)
        return cls(TrustPolicy.from_payload(payload), payload, signatures)

    @classmethod
    def unsigned(cls, policy: TrustPolicy) -> SignedTrust:
        """A policy that nobody has signed yet."""
        return cls(policy, policy.to_payload(), {})

    def signed_by(self, key: SigningKey) -> SignedTrust:
        """The same with this key's signature, too."""
        signature = join_signature(self.payload, PAYLOAD_TYPE, key)
        return SignedTrust(self.policy, self.payload, {**self.signatures, key.public.key_id: signature})

    def to_bytes(self) -> bytes:
        """The file."""
        return encode_joined(self.payload, PAYLOAD_TYPE, self.signatures)

    @property
    def digest(self) -> Digest:
        """SHA-256 of the file."""
        return sha256(self.to_bytes())

    def signers(self, among: Mapping[KeyId, TrustedKey]) -> tuple[KeyId, ...]:
        """Those of these keys that have signed it.

        Raises:
            SignatureError: a signature that names one of them does not verify.
        """
        found = [key_id for key_id in self.signatures if key_id in among]
        for key_id in found:
            check_signature(among[key_id].public, self.payload, self.signatures[key_id], WHAT, PAYLOAD_TYPE)
        return tuple(found)


def check_next(current: TrustPolicy | None, new: SignedTrust, origin: str) -> None:
    """Refuse a policy that does not follow the one in force by the rules that both state.

    Raises:
        SignatureError: about another log, not the next version, too few of either's policy keys have signed it, or a
            signature that does not verify.
    """
    policy, version = new.policy, 1 if current is None else current.version + 1
    if policy.origin != origin:
        raise SignatureError(f"{WHAT}: expected one of the log {origin}, got one of {show(policy.origin)}")
    if policy.version != version:
        raise SignatureError(f"{WHAT}: expected version {version}, got {policy.version}", hint="rasura trust show")
    for which in (policy, current):
        if which is None:
            continue
        allowed = which.with_role(POLICY)
        signers = new.signers(allowed)
        if len(signers) < which.threshold:
            names = ", ".join(sorted(key.name for key in allowed.values()))
            raise SignatureError(
                f"{WHAT}: version {which.version} asks for {which.threshold} signatures of {names}: expected so many "
                f"on version {policy.version}, got {len(signers)}",
                hint="rasura trust sign FILE --key NAME",
            )
