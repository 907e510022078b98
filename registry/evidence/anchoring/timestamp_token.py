"""RFC 3161 time-stamp tokens over checkpoints: somebody with a clock of their own saw these bytes then.

`openssl ts -query -data kept.txt -sha256 -cert -out kept.tsq` makes the request; any time-stamping authority answers
it. Needs rfc3161-client: pip install 'rasura[tsa]'.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rasura.patches.errors import AuditError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.x509 import Certificate
    from rfc3161_client import TimeStampResponse

__all__ = ["MAX_TOKEN_BYTES", "read_roots", "verify_token"]

MAX_TOKEN_BYTES: Final = 64 * 1024
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def verify_token(token: bytes, message: bytes, roots: Sequence[Certificate]) -> datetime:
    """The time at which an authority saw the message.

    Args:
        token: a DER TimeStampResp.
        message: what it is over.
        roots: certificates of authorities that count.

    Raises:
        AuditError: it is no token, of something else, or by nobody who counts.
        InputError: rfc3161-client is missing.
    """
    found = _read_token(token)
    from rfc3161_client import VerificationError, VerifierBuilder

    builder = VerifierBuilder()
    for root in roots:
        builder = builder.add_root_certificate(root)
    try:
        sound = builder.build().verify_message(found, message)
    except (VerificationError, ValueError) as error:
        raise AuditError(f"time stamp: it does not verify: {error}") from None
    if not sound:
        raise AuditError("time stamp: it does not verify")
    return found.tst_info.gen_time.astimezone(UTC)


def read_claimed_time(token: bytes) -> datetime:
    """The time that a token names; nothing is verified.

    Raises:
        AuditError: it is no token.
        InputError: rfc3161-client is missing.
    """
    return _read_token(token).tst_info.gen_time.astimezone(UTC)


def read_roots(pem: bytes) -> tuple[Certificate, ...]:
    """The certificates in a PEM file.

    Raises:
        InputError: there is none.
    """
    from cryptography.x509 import load_pem_x509_certificate

    try:
        found = tuple(load_pem_x509_certificate(part) for part in _PEM.findall(pem))
    except ValueError as error:
        raise InputError(f"certificate: expected PEM, got {error}") from None
    if not found:
        raise InputError("certificate: expected PEM, got something else", hint="--tsa-ca FILE.pem")
    return found


def _read_token(token: bytes) -> TimeStampResponse:
    try:
        from rfc3161_client import decode_timestamp_response
    except ImportError as error:
        raise InputError(f"a time stamp needs rfc3161-client: {error}", hint="pip install 'rasura[tsa]'") from None
    try:
        return decode_timestamp_response(token)
    except ValueError as error:
        raise AuditError(f"time stamp: expected an RFC 3161 response, got something else: {error}") from None
