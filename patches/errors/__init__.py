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

What could not be done (exit code 1) is defined in `could_not`, what was declined or names nothing in `declined`.
"""

from rasura.patches.errors.could_not import (
    AlgebraError,
    BoundExceededError,
    ConceptError,
    CutOffError,
    ForeignAnswerError,
    GatedError,
    HostError,
    HostWriteError,
    HubError,
    InputError,
    ListError,
    NoRegistryError,
    NotFiniteError,
    OffGridError,
    OutputError,
    ProcessGroupError,
    RateLimitError,
    RegistryError,
    RetainSetError,
    SchemaError,
    StrengthError,
    TooLargeError,
    UnsupportedHostError,
)
from rasura.patches.errors.declined import (
    AlreadyAppliedError,
    AmbiguousIdError,
    AuditError,
    BaseMismatchError,
    BusyError,
    CheckRefusedError,
    ConflictError,
    DigestMismatchError,
    DriftError,
    ErasureRefusedError,
    ExistsError,
    FormatError,
    NotAppliedError,
    NotApprovedError,
    NotFoundError,
    RefusedError,
    RevokedKeyError,
    SignatureError,
    UntrustedKeyError,
    VerificationError,
)
from rasura.patches.errors.root import RasuraError

__all__ = [
    "AlgebraError",
    "AlreadyAppliedError",
    "AmbiguousIdError",
    "AuditError",
    "BaseMismatchError",
    "BoundExceededError",
    "BusyError",
    "CheckRefusedError",
    "ConceptError",
    "ConflictError",
    "CutOffError",
    "DigestMismatchError",
    "DriftError",
    "ErasureRefusedError",
    "ExistsError",
    "ForeignAnswerError",
    "FormatError",
    "GatedError",
    "HostError",
    "HostWriteError",
    "HubError",
    "InputError",
    "ListError",
    "NoRegistryError",
    "NotAppliedError",
    "NotApprovedError",
    "NotFiniteError",
    "NotFoundError",
    "OffGridError",
    "OutputError",
    "ProcessGroupError",
    "RasuraError",
    "RateLimitError",
    "RefusedError",
    "RegistryError",
    "RetainSetError",
    "RevokedKeyError",
    "SchemaError",
    "SignatureError",
    "StrengthError",
    "TooLargeError",
    "UnsupportedHostError",
    "UntrustedKeyError",
    "VerificationError",
]
