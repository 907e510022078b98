"""The calls that solve registered patches anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rasura.api.arguments import Lines, read_held_out
from rasura.api.calls._calls import Calls
from rasura.api.hints import in_python

if TYPE_CHECKING:
    from rasura.patches.solving.conditioning import Conditioning
    from rasura.patches.types import PatchId
    from rasura.registry.erase.rebase import Resolved
    from rasura.registry.erase.retarget import Retargeted
    from rasura.registry.erase.solve_again import Anew
    from rasura.registry.live.arguments import Ids
    from rasura.registry.takedown.follow import Followed

__all__ = ["ResolveCalls"]


class ResolveCalls(Calls):
    """Patches solved anew."""

    @in_python
    def rebase(
        self,
        ids: Ids,
        *,
        protect: Ids = (),
        onto_stack: str | None = None,
        drop: Ids = (),
        retain: str | Path | None = None,
        retain_column: str | None = None,
        held_out: Lines = (),
        key: str | None = None,
        dry_run: bool = False,
        reason: str = "",
    ) -> tuple[Resolved, ...]:
        """Solve patches anew beside the targets of others, and of each other (`rasura patch rebase`).

        Args:
            ids: the patches.
            protect: patches to leave alone, besides those that were left alone before; `all` as for `erase`.
            onto_stack: a stack whose patches to leave alone, too.
            drop: patches to leave alone no longer.
            retain: the retain file, where the registry does not hold its words.
            retain_column: column of CSV or JSONL.
            held_out: concepts on which leak is only measured; empty: everyday words.
            key: name of the key to sign with; None: the only one.
            dry_run: solve and measure, and register nothing.
            reason: why, for the log.

        Raises:
            RefusedError: the mathematics says no; nothing is registered.
        """
        from rasura.registry.erase.rebase import rebase

        found = self._resolve(ids)
        guards = self._protected_beside(found, protect, onto_stack)
        how = self._anew(retain, retain_column, held_out, key, protect=guards, drop=drop)
        return rebase(self.store, found, how, self._draft("patch.rebase", reason), self._progress, dry_run=dry_run)

    @in_python
    def join(
        self,
        ids: Ids,
        *,
        protect: Ids = (),
        drop: Ids = (),
        retain: str | Path | None = None,
        retain_column: str | None = None,
        held_out: Lines = (),
        key: str | None = None,
        dry_run: bool = False,
        reason: str = "",
    ) -> tuple[tuple[Resolved, ...], Conditioning]:
        """Solve patches together that were made alike (`rasura patch join`). Arguments as for `rebase`.

        Returns:
            The new patches, and how well their concepts are told apart.

        Raises:
            RefusedError: the mathematics says no; nothing is registered.
        """
        from rasura.registry.erase.rebase import join

        found = self._resolve(ids)
        guards = self._protected_beside(found, protect)
        how = self._anew(retain, retain_column, held_out, key, protect=guards, drop=drop)
        return join(self.store, found, how, self._draft("patch.join", reason), self._progress, dry_run=dry_run)

    @in_python
    def retarget(
        self,
        patch: str,
        base: str | Path,
        *,
        retain: str | Path | None = None,
        retain_column: str | None = None,
        held_out: Lines = (),
        key: str | None = None,
        dry_run: bool = False,
        reason: str = "",
    ) -> Retargeted:
        """Express a closed-form patch on another UNet that shares the text encoder (`rasura patch retarget`).

        Arguments as for `rebase`.

        Raises:
            BaseMismatchError: another text encoder, or other shapes.
        """
        from rasura.registry.erase.retarget import retarget

        how, draft = self._anew(retain, retain_column, held_out, key), self._draft("patch.retarget", reason)
        found = self.store.resolve_patch(patch)
        return retarget(self.store, found, str(base), how, draft=draft, progress=self._progress, dry_run=dry_run)

    @in_python
    def retarget_stack(
        self,
        name: str,
        base: str | Path,
        *,
        to: str | None = None,
        retain: str | Path | None = None,
        key: str | None = None,
        dry_run: bool = False,
        reason: str = "",
    ) -> Followed:
        """Make of a stack one for another base, such as a finetune (`rasura stack retarget`).

        Args:
            name: of the stack.
            base: name or digest of the other base, or its folder.
            to: what to call the new stack; without it, the old one's name and the base's.
            retain: as for `rebase`.
            key: as for `rebase`.
            dry_run: as for `rebase`.
            reason: for the log.

        Returns:
            The stack, its patches, and how far the other base has drifted.

        Raises:
            ExistsError: there is a stack of the new name.
        """
        from rasura.registry.takedown.follow import retarget_stack

        how, draft = self._anew(retain, None, (), key), self._draft("patch.retarget", reason)
        return retarget_stack(
            self.store,
            name,
            str(base),
            how,
            to=to,
            actor=self._who(reason),
            draft=draft,
            progress=self._progress,
            dry_run=dry_run,
        )

    def _anew(
        self,
        retain: str | Path | None,
        column: str | None,
        held_out: Lines,
        key: str | None,
        *,
        protect: Sequence[PatchId] = (),
        drop: Ids = (),
    ) -> Anew:
        from rasura.patches.prompts.concept_prompts import HELD_OUT
        from rasura.registry.erase.solve_again import Anew

        file, words = None if retain is None else Path(retain), read_held_out(held_out) or HELD_OUT
        return Anew(tuple(protect), tuple(self._resolve(drop)), file, column, words, key)

    def _protected_beside(self, ids: Sequence[PatchId], protect: Ids, onto_stack: str | None = None) -> list[PatchId]:
        """What these patches shall leave alone."""
        from rasura.registry.erase.rebase import check_protect, find_all_others

        check_protect(ids, self._protected(protect, None)[0])
        named, everything = self._protected(protect, onto_stack)
        return list(dict.fromkeys([*named, *(find_all_others(self.store, ids) if everything else ())]))
