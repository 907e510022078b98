"""What could not be done: exit code 1. `rasura.patches.errors` draws the tree."""

from rasura.patches.errors.root import RasuraError


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
