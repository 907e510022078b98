"""The originals that one live host keeps: taken before the first write, given back, and let go of.

They lie on the modules themselves (`rasura.patches.hosts.live.originals`); here is what a write must heed.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from rasura.patches._io.parallel import count_at_once
from rasura.patches.errors import HostWriteError
from rasura.patches.hosts.check_value import check_uncast, info_of
from rasura.patches.hosts.live.bit_compare import same_bits
from rasura.patches.hosts.live.module_parameters import LiveParameter
from rasura.patches.hosts.live.originals import KeepOn, copy_to_keep, drop_original, keep, originals_of, value_of
from rasura.patches.hosts.live.value_cache import Remembered
from rasura.patches.types import ParamName

__all__ = ["KeptOriginals"]


class KeptOriginals:
    """The originals of these components' parameters, as far as something is applied to them."""

    def __init__(self, components: Mapping[str, nn.Module], label: str, keep_on: KeepOn, memory: Remembered) -> None:
        """Keep what is touched from now on.

        Args:
            components: plain modules by their names in a pipeline.
            label: what a person calls the host; for errors.
            keep_on: where originals go.
            memory: values that the model has had.
        """
        self._components = components
        self._label = label
        self._keep_on = keep_on
        self._memory = memory

    def names(self) -> frozenset[ParamName]:
        """The parameters whose originals are kept."""
        return frozenset(name for module in self._components.values() for name in originals_of(module))

    def forget(self, name: ParamName) -> None:
        """Let go of one: the parameter is as it was."""
        drop_original(self._component(name), name)

    @contextmanager
    def keeping(self, lives: list[LiveParameter], host_id: str) -> Iterator[Mapping[ParamName, torch.Tensor]]:
        """Keep the originals of what is touched for the first time; forget them again if the block fails.

        Gives what is there now, as far as somebody holds it besides the model.

        Args:
            lives: what is touched.
            host_id: kept beside them.

        Raises:
            HostWriteError: torch could not do what was done inside, for want of memory or otherwise.
        """
        fresh = [live for live in lives if live.name not in originals_of(self._component(live.name))]
        try:
            held = self._known(lives)
            for live in fresh:
                kept = copy_to_keep(live.name, live.tensor, self._keep_on, held.get(live.name))
                keep(self._component(live.name), live.name, kept, host_id)
                if isinstance(kept, torch.Tensor):  # of what lies on disk alone, `restoring` makes a copy
                    held[live.name] = kept
            yield held
        except BaseException as error:
            for live in fresh:
                if self._is_pristine(live):  # interrupted behind the write, the model is patched and needs it
                    self.forget(live.name)
            if isinstance(error, RuntimeError):  # torch's own, out of memory among them
                raise HostWriteError(
                    f"{self._label}: expected to write {len(lives)} tensors, got {error}; nothing was changed"
                ) from None
            raise

    def _known(self, lives: list[LiveParameter]) -> dict[ParamName, torch.Tensor]:
        """What is there now, where it is remembered: in fresh memory a copy takes longer than comparing."""
        copies = count_at_once(lambda live: self._memory.copy_of(live.name, live.tensor), lives)
        return {live.name: copy for live, copy in zip(lives, copies, strict=True) if copy is not None}

    def _is_pristine(self, live: LiveParameter) -> bool:
        kept = originals_of(self._component(live.name)).get(live.name)
        return kept is None or same_bits(live.tensor, value_of(live.name, kept))

    def check_pristine(self, live: LiveParameter, changed: Mapping[ParamName, torch.Tensor]) -> None:
        """Refuse to forget the only copy of an original.

        Raises:
            HostWriteError: the parameter is not as it was, and would not be after this change.
        """
        kept = originals_of(self._component(live.name)).get(live.name)
        after = changed.get(live.name, live.tensor)
        # Nothing kept: what is there now is the only copy, and would be overwritten.
        if (kept is None and live.name in changed) or (
            kept is not None and not same_bits(after, value_of(live.name, kept))
        ):
            raise HostWriteError(
                f"{live.name}: expected to be as it was before its original is forgotten, got other values; "
                "nothing was changed",
                parameter=live.name,
            )

    def value(self, live: LiveParameter) -> torch.Tensor:
        """The original of one parameter, which is never written."""
        kept = originals_of(self._component(live.name)).get(live.name)
        if kept is None:  # never written to: what is there is the original
            return live.tensor
        original = value_of(live.name, kept)
        check_uncast(info_of(live.name, live.tensor), info_of(live.name, original))
        return original

    def held(self, names: Iterable[ParamName]) -> list[ParamName]:
        """Those whose originals lie in memory."""
        return [n for n in names if isinstance(originals_of(self._component(n)).get(n), torch.Tensor)]

    def _component(self, name: ParamName) -> nn.Module:
        return self._components[name.split(".", 1)[0]]
