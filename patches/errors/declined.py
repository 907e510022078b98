"""What was understood and declined, or names nothing: exit codes from 3 on. `rasura.patches.errors` draws the tree."""

from rasura.patches.errors.root import RasuraError


class RefusedError(RasuraError):
    """The mathematics, or a policy, says no."""

    code = "refused"
    exit_code = 3


class ErasureRefusedError(RefusedError):
    """The target lies inside the protected span; erasing it would break a promise."""

    code = "erasure_refused"


class CheckRefusedError(RefusedError):
    """Patches interfere, or a promise does not hold."""

    code = "check_refused"


class NotApprovedError(RefusedError):
    """The trust policy asks for approvals that are not there, or it has expired."""

    code = "not_approved"


class VerificationError(RasuraError):
    """Bytes, signatures or trust."""

    code = "verification"
    exit_code = 4


class FormatError(VerificationError):
    """A file that breaks its format or the format's limits."""

    code = "format"


class DigestMismatchError(VerificationError):
    """Bytes that are not those which were named."""

    code = "digest_mismatch"


class SignatureError(VerificationError):
    """A patch without a signature, or one whose signature does not verify."""

    code = "signature"


class UntrustedKeyError(VerificationError):
    """A good signature by a key that this registry does not trust."""

    code = "untrusted_key"


class RevokedKeyError(VerificationError):
    """A good signature by a key that this registry has revoked."""

    code = "revoked_key"


class AuditError(VerificationError):
    """The audit log, its tree or its signature is broken."""

    code = "audit"


class BaseMismatchError(RasuraError):
    """The weights are not those which the patch was computed on."""

    code = "base_mismatch"
    exit_code = 5


class DriftError(RasuraError):
    """A model that changed outside the registry."""

    code = "drift"
    exit_code = 6


class ConflictError(RasuraError):
    """The present state does not allow this."""

    code = "conflict"
    exit_code = 7


class AlreadyAppliedError(ConflictError):
    """The patch is applied to this host already."""

    code = "already_applied"


class NotAppliedError(ConflictError):
    """The patch is not applied to this host."""

    code = "not_applied"


class ExistsError(ConflictError):
    """The same name or identity for something else."""

    code = "exists"


class BusyError(ConflictError):
    """Another process holds the model or the registry."""

    code = "busy"


class NotFoundError(RasuraError):
    """An identifier that names nothing."""

    code = "not_found"
    exit_code = 8


class AmbiguousIdError(NotFoundError):
    """An abbreviation that names several things."""

    code = "ambiguous_id"
