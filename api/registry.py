"""Everything the command line does, from Python: one call a command, over the same functions, with the same log.

    import rasura

    with rasura.open("work") as registry:                    # or rasura.init("work") for a new one
        made = registry.erase("work/model", rasura.request("dog", anchor="cat", retain="retain.txt"))
        registry.apply("work/model", [item.patch.patch_id for item in made], reason="takedown 118")
        registry.revert("work/model")

Nothing is decided here: each method parses what may be written as text, makes the one call that the command makes, and
gives what that call gives. What goes wrong is an error of `rasura.errors`; its hint names the next call, where the
command line prints the next command (`python_hint`). A handle belongs to one thread; open another for another thread.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rasura.api.calls.applying.models import ModelCalls
from rasura.api.calls.applying.stacks import StackCalls
from rasura.api.calls.bases_and_keys import BaseAndKeyCalls
from rasura.api.calls.checking.checks import CheckCalls
from rasura.api.calls.checking.evaluations import EvaluationCalls
from rasura.api.calls.erasing.new_patches import NewPatchCalls
from rasura.api.calls.erasing.resolve import ResolveCalls
from rasura.api.calls.erasing.takedown import TakedownCalls
from rasura.api.calls.hub import HubCalls
from rasura.api.calls.patches import PatchCalls
from rasura.api.calls.proving.anchors import AnchorCalls
from rasura.api.calls.proving.approvals import ApprovalCalls
from rasura.api.calls.proving.cases import CaseCalls
from rasura.api.calls.proving.log import LogCalls
from rasura.api.progress import Progress, ignore_progress

if TYPE_CHECKING:
    from rasura.registry.registry import Registry as Store

__all__ = ["Registry"]


class Registry(
    BaseAndKeyCalls,
    NewPatchCalls,
    TakedownCalls,
    ResolveCalls,
    PatchCalls,
    CheckCalls,
    ModelCalls,
    StackCalls,
    ApprovalCalls,
    HubCalls,
    EvaluationCalls,
    CaseCalls,
    LogCalls,
    AnchorCalls,
):
    """A registry, open. Made by `open` and `init`; a context manager.

    `model` is a model on disk: a diffusers folder or a single file. Patches are named by identifier or abbreviation,
    one or several; a set of patches with strengths (`patches`, `stack`) is the name of a stack, the path of a lock
    file, a list of `ID` or `ID=STRENGTH`, a `Stack`, or another mapping of identifiers to strengths. Whatever changes
    something takes `reason`, which goes into the audit log with the actor.
    """

    def __init__(self, store: Store, actor: str, progress: Progress = ignore_progress) -> None:
        """Use `rasura.open` or `rasura.init`."""
        self.store = store
        self.actor = actor
        self._progress = progress

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<rasura.Registry at {self.location}>"

    def close(self) -> None:
        """Give up the connections."""
        self.store.close()

    @property
    def location(self) -> str:
        """Where it is; never a password."""
        return str(self.store.location)
