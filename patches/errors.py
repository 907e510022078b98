"""Every error that rasura raises on purpose. One tree, one exit code a branch.

RasuraError                         1  anything below; `hint` is the next command to type
├── InputError                      1  a person's request makes no sense
│   ├── ConceptError                   empty concept, concept equal to its anchor, prompt too long
│   ├── ListError                      a list that is empty, unreadable, or can be read in two ways
│   │   └── RetainSetError                 the same of a retain set
│   └── StrengthError                  a strength off the grid or out of range
├── AlgebraError                    1  numbers that the exact arithmetic cannot hold
│   ├── OffGridError                   a factor that is no multiple of its grid step
│   ├── BoundExceededError             Σ|s||B||A| at or over 2⁸, or |b| ≥ 64: exactness would be lost
│   └── NotFiniteError                 NaN or infinity
├── HostError                       1  a model that cannot be read or written as asked
│   ├── UnsupportedHostError           no cross-attention, links into a cache, meta tensors, fused projections
│   ├── HostWriteError                 disk full, read-only, I/O error; nothing was changed
│   └── ProcessGroupError              a process that holds a part of the model died or did not come
├── OutputError                     1  standard output does not take what there is to say
├── RegistryError                   1  the registry itself
│   ├── NoRegistryError                none found upwards from here
│   └── SchemaError                    the database is of another version
├── HubError                        1  the Hub did not do what was asked
│   ├── GatedError                     access to the repository has to be asked for on its page
│   ├── RateLimitError                 the Hub asks to slow down
│   ├── TooLargeError                  the Hub takes no file or commit as large as this
│   ├── CutOffError                    the connection ended in the middle of an answer
│   └── ForeignAnswerError             an answer that is none of a Hub's: a web page, or another server's
├── RefusedError                    3  the mathematics, or a policy, says no
│   ├── ErasureRefusedError            the target lies inside the protected span
│   ├── CheckRefusedError              patches interfere, or a promise does not hold
│   └── NotApprovedError               approvals are missing that the trust policy asks for, or it has expired
├── VerificationError               4  bytes, signatures or trust
│   ├── FormatError                    a file that breaks the format or its limits
│   ├── DigestMismatchError            bytes are not those that were named
│   ├── SignatureError                 unsigned, or the signature does not verify
│   ├── UntrustedKeyError              a good signature by a key that this registry does not trust
│   ├── RevokedKeyError                a good signature by a revoked key
│   └── AuditError                     the log, its tree or its signature is broken
├── BaseMismatchError               5  the weights are not those the patch was computed on
├── DriftError                      6  a model changed outside the registry
├── ConflictError                   7  the state does not allow this now
│   ├── AlreadyAppliedError
│   ├── NotAppliedError
│   ├── ExistsError                    the same name for something else
│   └── BusyError                      another process holds the model or the registry
└── NotFoundError                   8  an identifier that names nothing
    └── AmbiguousIdError               an abbreviation that names several
"""

from typing import ClassVar


class RasuraError(Exception):
    """Root of all errors: a sentence with expected and got, and a hint that is the next command to type.

    Attributes:
        code: registered name for machines; unique in the tree.
        exit_code: what the process ends with.
        hint: the next command to type, or "".
        details: what a machine may want to know (JSON-compatible values).
        others: what else stands in the way; none of them carries others (`rasura.patches.obstacles`).
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details
        self.others: tuple[RasuraError, ...] = ()

    def say_of(self, what: str) -> None:
        """Begin the sentence with what it is about, if that does not stand in it."""
        if what not in self.message:
            self.message = f"{what}: {self.message}"
            self.args = (self.message,)


class InputError(RasuraError):
    """A person's request makes no sense."""

    code = "input"


class ConceptError(InputError):
    """An empty concept, a concept equal to its anchor, or a prompt longer than the text encoder reads."""

    code = "concept"


class ListError(InputError):
    """A list that is empty or unreadable, or can be read in more than one way."""

    code = "list"


class RetainSetError(ListError):
    """A retain file that is empty or unreadable, or can be read in more than one way."""

    code = "retain_set"


class StrengthError(InputError):
    """A strength that is no multiple of 2⁻⁴ or lies outside [-4, 4]."""

    code = "strength"


class AlgebraError(RasuraError):
    """Numbers that the exact arithmetic cannot hold."""

    code = "algebra"


class OffGridError(AlgebraError):
    """A factor that is no multiple of its grid step."""

    code = "off_grid"


class BoundExceededError(AlgebraError):
    """A sum so large that float64 would round it."""

    code = "bound_exceeded"


class NotFiniteError(AlgebraError):
    """NaN or infinity where a number was expected."""

    code = "not_finite"


class HostError(RasuraError):
    """A model that cannot be read or written as asked."""

    code = "host"


class UnsupportedHostError(HostError):
    """A model that has no layer to patch, or whose layers are not plain writable tensors."""

    code = "unsupported_host"


class HostWriteError(HostError):
    """Writing failed (disk full, read-only, I/O error); the model is as it was."""

    code = "host_write"


class ProcessGroupError(HostError):
    """A process that holds a part of a sharded model died, or did not come in time."""

    code = "process_group"


class OutputError(RasuraError):
    """What a command had to say could not be printed: the disk behind standard output is full, or broken."""

    code = "output"


class RegistryError(RasuraError):
    """The registry itself cannot be used."""

    code = "registry"


class NoRegistryError(RegistryError):
    """No registry was found upwards from here."""

    code = "no_registry"


class SchemaError(RegistryError):
    """The database's schema is of another version than this program's."""

    code = "schema"


class HubError(RasuraError):
    """The Hub did not do what was asked."""

    code = "hub"


class GatedError(HubError):
    """A repository whose owner grants access one by one; its page says how to ask."""

    code = "gated"


class RateLimitError(HubError):
    """The Hub asks to slow down, for longer than a command waits."""

    code = "rate_limit"


class TooLargeError(HubError):
    """The Hub takes no file, or no commit, as large as this."""

    code = "too_large"


class CutOffError(HubError):
    """The connection ended in the middle of an answer."""

    code = "cut_off"


class ForeignAnswerError(HubError):
    """An answer that is none of a Hub's: a web page, something compressed, or a redirect to another server."""

    code = "foreign_answer"


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
