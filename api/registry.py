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

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from rasura.api.case_calls import CaseCalls
from rasura.api.hints import in_python, python_hint
from rasura.api.log_calls import LogCalls
from rasura.api.progress import Progress, ignore_progress
from rasura.patches.errors import InputError

if TYPE_CHECKING:
    from rasura.evaluation.evaluate import EvaluationRequest
    from rasura.evaluation.look import Seen
    from rasura.evaluation.report.evaluated import Evaluated
    from rasura.patches.algebra.increment import Strength
    from rasura.patches.checks.policy import Policy
    from rasura.patches.erasers.request import EraseRequest
    from rasura.patches.format.kohya_lora import KohyaFile
    from rasura.patches.format.patch import Patch
    from rasura.patches.lists.role import Role
    from rasura.patches.prompts.retain_set import HeldOut
    from rasura.patches.solving.conditioning import Conditioning
    from rasura.patches.types import PatchId
    from rasura.registry import hub
    from rasura.registry._storage.choices import StackRecord
    from rasura.registry._storage.records import (
        BaseRecord,
        BaseSummary,
        Draft,
        EvaluationRecord,
        KeyRecord,
        PatchRecord,
    )
    from rasura.registry.apply.goal import Goal
    from rasura.registry.apply.motion import Actor, Receipt
    from rasura.registry.apply.status import Survey
    from rasura.registry.doctor import Finding
    from rasura.registry.erase.adopt import Foundling
    from rasura.registry.erase.erase import Erased
    from rasura.registry.erase.rebase import Resolved
    from rasura.registry.erase.retarget import Retargeted
    from rasura.registry.erase.solve_again import Anew
    from rasura.registry.hub.transfer import Pull
    from rasura.registry.live.arguments import Factor, GoalRef, Ids
    from rasura.registry.registry import Registry as Store
    from rasura.registry.stacks.bisect import Judgement, Step
    from rasura.registry.stacks.bisect_state import Bisection
    from rasura.registry.stacks.bundle import Bundle, TakenIn
    from rasura.registry.stacks.edit import Update
    from rasura.registry.stacks.lock_file import LockFile
    from rasura.registry.stacks.overview import Overview
    from rasura.registry.stacks.plan import Planned
    from rasura.registry.stacks.plan_file import Plan
    from rasura.registry.standing.garbage import Garbage
    from rasura.registry.standing.standing import Placed, Standing
    from rasura.registry.standing.undo import Undone
    from rasura.registry.takedown.carry_out import Done
    from rasura.registry.takedown.ground import Place
    from rasura.registry.takedown.plan import TakedownPlan
    from rasura.registry.trust.check import Judged

__all__ = ["Lines", "PolicyRef", "Registry", "read_held_out", "read_lines"]

PolicyRef: TypeAlias = "Policy | str | Path"
"""A policy, or the path of its TOML file."""
Lines: TypeAlias = str | Path | Iterable[str]
"""A text, several texts, or a `Path`: a list as people have them (docs/lists.md)."""


def read_lines(lines: Lines, role: Role | None = None) -> tuple[str, ...]:
    """The texts.

    Args:
        lines: texts or a file.
        role: what a file of them is for; None: templates.

    Raises:
        NotFoundError: the file is missing.
        ListError: it is empty or unreadable, or can be read in more than one way.
    """
    from rasura.patches.lists.role import TEMPLATES
    from rasura.patches.prompts.retain_set import load_texts

    if isinstance(lines, Path):
        return load_texts(lines, role or TEMPLATES)
    return (lines,) if isinstance(lines, str) else tuple(lines)


def read_held_out(lines: Lines, *, truncate: bool = False) -> HeldOut:
    """Texts on which leak is only measured; of a file, the list as it was read.

    Raises:
        ListError: as `read_lines`.
    """
    from rasura.patches.prompts.retain_set import load_held_out

    return load_held_out(lines, truncate=truncate) if isinstance(lines, Path) else read_lines(lines)


class Registry(LogCalls, CaseCalls):
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

    # Keys

    @in_python
    def new_key(self, name: str, *, reason: str = "") -> KeyRecord:
        """Make an ECDSA P-256 key pair; this registry trusts it at once (`rasura key new`).

        Raises:
            ExistsError: there is a key of this name.
        """
        from rasura.registry.trust.key_files import make_key

        return make_key(self.store, name, self._draft("key.add", reason))

    @in_python
    def trust_key(
        self, file: str | Path, *, name: str | None = None, dry_run: bool = False, reason: str = ""
    ) -> KeyRecord:
        """Trust patches signed by the public key in a PEM file (`rasura key trust`).

        With `dry_run` nothing is written.

        Raises:
            NotFoundError, FormatError: no such file, or no public key in it.
        """
        from rasura.registry.trust.key_files import trust_file

        return trust_file(self.store, Path(file), name, self._draft("key.trust", reason), dry_run=dry_run)

    @in_python
    def revoke_key(self, key: str, *, dry_run: bool = False, reason: str = "") -> bool:
        """Revoke a key for good: nothing it signed can be applied from now on (`rasura key revoke`).

        With `dry_run` nothing is written.

        Returns:
            Whether it was not revoked before.

        Raises:
            NotFoundError: no such key.
        """
        if dry_run:
            return self.store.key(key).revoked_at is None
        return self.store.revoke_key(key, self.store.now(), self._draft("key.revoke", reason))

    @in_python
    def keys(self) -> tuple[KeyRecord, ...]:
        """The keys that this registry knows (`rasura key list`)."""
        return self.store.keys()

    @in_python
    def key(self, key: str) -> KeyRecord:
        """One key by name, id or abbreviation; `pem` is its public half (`rasura key export`).

        Raises:
            NotFoundError: no such key.
        """
        return self.store.key(key)

    # Bases

    @in_python
    def add_base(
        self, model: str | Path, *, name: str | None = None, dry_run: bool = False, reason: str = ""
    ) -> BaseRecord:
        """Hash every patchable parameter of a model and register it as a base (`rasura base add`).

        With `dry_run` nothing is written.

        Raises:
            NotFoundError, UnsupportedHostError: no such folder, or no model that can be a base.
            ExistsError: the name belongs to other weights.
        """
        from rasura.registry.erase.base_models import add_base

        draft = self._draft("base.add", reason)
        return add_base(self.store, Path(model), name, draft, self._progress, dry_run=dry_run)[0].record

    @in_python
    def bases(self) -> tuple[BaseSummary, ...]:
        """The registered bases (`rasura base list`)."""
        return self.store.bases()

    @in_python
    def base(self, base: str) -> BaseRecord:
        """One base by name, digest or abbreviation (`rasura base show`).

        Raises:
            NotFoundError: no such base.
        """
        return self.store.base(base)

    # Patches

    @in_python
    def erase(
        self,
        base: str | Path,
        request: EraseRequest,
        *,
        protect: Ids = (),
        onto_stack: str | None = None,
        key: str | None = None,
        device: str = "cpu",
        work: str | Path | None = None,
        dry_run: bool = False,
        reason: str = "",
    ) -> tuple[Erased, ...]:
        """Erase concepts from a base: one signed, separable patch each, registered and not yet applied.

        Args:
            base: a registered base, or a diffusers folder.
            request: what to erase and how; see `request`.
            protect: registered patches whose targets must stay untouched; `all` is every one of this base, of another
                concept, that none supersedes.
            onto_stack: a stack whose patches' targets must stay untouched, too.
            key: name of the key to sign with; None: the only one.
            device: where methods that look through the UNet compute.
            work: a folder where a long training keeps its state, to go on from after a kill.
            dry_run: solve and measure, and register nothing.
            reason: why, for the log.

        Raises:
            RefusedError: the mathematics says no; logged as refused.
            RasuraError: anything else; logged as failed. Nothing is registered.
        """
        from rasura.registry.erase.erase import erase

        named, everything = self._protected(protect, onto_stack)
        return erase(
            self.store,
            str(base),
            request,
            key=key,
            protect=named,
            protect_others=everything,
            draft=self._draft("patch.erase", reason),
            progress=self._progress,
            device=device,
            work=None if work is None else Path(work),
            dry_run=dry_run,
        )

    @in_python
    def adopt(
        self,
        source: str | Path,
        base: str | Path,
        concept: str,
        *,
        anchor: str = "",
        method: str = "other",
        retain: str | Path | None = None,
        retain_column: str | None = None,
        held_out: Lines = (),
        take: str = "separable",
        leave_out: bool = False,
        scale: float | None = None,
        rank: int | None = None,
        energy: float | None = None,
        tokens: str | None = None,
        templates: Lines = (),
        rank_rule: str | None = None,
        protect: Ids = (),
        model: str | Path | None = None,
        licence: str = "",
        key: str | None = None,
        reason: str = "",
    ) -> Foundling:
        """Make a signed patch of an erasure that another program made: weights, a LoRA or an SPM (`rasura adopt`).

        Args:
            source: a safetensors or pickled weight file, a UNet or pipeline folder, or an adapter.
            base: the registered base that it was made on, or its folder.
            concept: what it erases.
            anchor: what that becomes.
            method: what made it, for people: esd, uce, mace, speed, ca, spm, lora, other.
            retain: file of what to keep.
            retain_column: which column of it.
            held_out: concepts on which leak is only measured.
            take: `separable`, what sees nothing that is kept, or `whole`, which promises nothing.
            leave_out: adopt without the changes that no patch can hold, instead of refusing.
            scale: the change is multiplied by this.
            rank: most detectors.
            energy: share of each layer's change to carry.
            tokens: which tokens stand for the concept.
            templates: prompts with one `{}`.
            rank_rule: cut of the retained spectrum.
            protect: patches whose targets must stay untouched.
            model: where the base lies now, if it was moved.
            licence: SPDX id or name for the patch.
            key: name of the key to sign with; None: the only one.
            reason: why, for the log.

        Raises:
            RefusedError: it changes what no patch can hold, or nothing of it is separable; logged as refused.
            RasuraError: anything else; logged as failed. Nothing is registered.
        """
        from rasura.patches.prompts.concept_prompts import Target
        from rasura.patches.prompts.retain_set import load_retain_set
        from rasura.registry.erase.adopt import Adoption, adopt

        if take not in {"separable", "whole"}:
            raise InputError(f"take={take!r}: expected 'separable' or 'whole'")
        wanted = Adoption(
            Path(source),
            Target(concept, anchor),
            None if retain is None else load_retain_set(Path(retain), retain_column),
            method,
            whole=take == "whole",
            leave_out=leave_out,
            scale=scale,
            energy=energy,
            rank=rank,
            tokens=tokens,
            templates=read_lines(templates),
            rank_rule=rank_rule,
            held_out=read_lines(held_out),
            licence=licence,
        )
        return adopt(
            self.store,
            str(base),
            wanted,
            key=key,
            draft=self._draft("patch.adopt", reason),
            progress=self._progress,
            model=None if model is None else Path(model),
            protect=self._resolve(protect) if protect else (),
        )

    @in_python
    def make_bundle(self, ids: Ids = (), *, stack: str | None = None, evaluations: bool = True) -> bytes:
        """Patches, their signers' public keys and evaluations as the bytes of one file (`rasura bundle make`).

        Args:
            ids: the patches.
            stack: a stack whose patches and lock go with them.
            evaluations: whether to send what was drawn with these patches alone.

        Raises:
            VerificationError: a patch is not good.
        """
        from rasura.registry.stacks.bundle import make_bundle

        return make_bundle(self.store, self._resolve(ids) if ids else (), stack=stack, evaluations=evaluations)

    @in_python
    def bundle(self, file: str | Path) -> Bundle:
        """What a bundle holds, and how its keys stand here; nothing is changed (`rasura bundle show`).

        Raises:
            VerificationError: it breaks its format, or a signature does not verify.
        """
        from rasura.registry.stacks.bundle import read_bundle

        return read_bundle(self.store, Path(file))

    @in_python
    def add_bundle(self, file: str | Path, *, trust: Lines = (), dry_run: bool = False, reason: str = "") -> TakenIn:
        """Verify every patch of a bundle and register all of them, or none (`rasura bundle add`).

        Args:
            file: the bundle.
            trust: keys of the bundle that are trusted from now on, by at least twelve digits of their ids.
            dry_run: verify everything, and write nothing.
            reason: why, for the log.

        Raises:
            UntrustedKeyError: signed by a key that is not trusted here and not named; nothing is changed.
            VerificationError: anything in it that is not what was signed; nothing is changed.
        """
        from rasura.registry.stacks.bundle import add_bundle

        draft, keys = self._draft("patch.add", reason), read_lines(trust)
        return add_bundle(self.store, Path(file), draft, trust=keys, dry_run=dry_run)

    @in_python
    def takedown(
        self,
        concepts: Lines = (),
        *,
        model: str | Path | None = None,
        stack: str | None = None,
        anchors: Lines = (),
        file: str | Path | None = None,
        retain: str | Path | None = None,
        retain_column: str | None = None,
        truncate: bool = False,
        templates: Lines = (),
        policy: PolicyRef | None = None,
        judge: str | None = None,
        pictures: int = 4,
        dry_run: bool = False,
        key: str | None = None,
        reason: str = "",
    ) -> tuple[TakedownPlan, tuple[Seen, ...], Done | None]:
        """Take concepts down beside all that is erased already, in one motion (`rasura takedown`).

        Args:
            concepts: what to take down.
            model: the model; or
            stack: the stack that takes them; one of the two.
            anchors: what they become: one for all or one each; none: `auto`.
            file: requests as CSV, YAML or JSONL, in place of `concepts`.
            retain: what to keep; None: what older patches keep.
            retain_column: which column of it.
            truncate: cut texts of it that are longer than the model reads.
            templates: prompts with one `{}`, for all concepts.
            policy: limits that must hold, too.
            judge: looks at pictures first; as for `evaluate`.
            pictures: how many of each concept it is shown.
            dry_run: plan, look, and stop.
            key: name of the key to sign with; None: the only one.
            reason: why, for the log.

        Returns:
            The plan, what a judge saw, and what was done; None of a dry run.

        Raises:
            InputError: both or neither of model and stack, or of concepts and file.
            CheckRefusedError: something stands in the way, or a judge still sees a concept; nothing was moved.
        """
        from rasura.patches.lists.role import ANCHORS, REQUESTS
        from rasura.patches.prompts.retain_set import load_retain_set
        from rasura.registry.takedown.plan import plan_takedown
        from rasura.registry.takedown.wanted import list_wanted
        from rasura.registry.takedown.wanted_file import read_wanted

        texts, own = read_lines(concepts, REQUESTS), read_lines(templates)
        if bool(texts) == (file is not None):
            raise InputError("expected concepts or a file of requests, one of the two", hint="rasura takedown")
        wanted = (
            list_wanted(texts, read_lines(anchors, ANCHORS), [own]) if file is None else read_wanted(Path(file), own)
        )
        plan = plan_takedown(
            self.store,
            _place(model, stack),
            wanted,
            retain=None if retain is None else load_retain_set(retain, retain_column, truncate=truncate),
            templates=(),
            draft=self._draft("takedown.plan", reason),
            progress=self._progress,
            policy=_read_policy(policy),
        )
        return self._finish(plan, "takedown.plan", reason, policy, judge, pictures, key, dry_run=dry_run)

    @in_python
    def withdraw(
        self,
        names: Lines,
        *,
        model: str | Path | None = None,
        stack: str | None = None,
        policy: PolicyRef | None = None,
        judge: str | None = None,
        pictures: int = 4,
        dry_run: bool = False,
        key: str | None = None,
        reason: str = "",
    ) -> tuple[TakedownPlan, tuple[Seen, ...], Done | None]:
        """Take takedowns back, in one motion; all others stay erased (`rasura withdraw`).

        Args:
            names: concepts, or identifiers of patches.
            model: see `takedown`.
            stack: see `takedown`.
            policy: limits that must hold, too.
            judge: looks at pictures first.
            pictures: how many of each concept it is shown.
            dry_run: plan, look, and stop.
            key: name of the key to sign with; None: the only one.
            reason: why, for the log.

        Raises:
            NotFoundError: what was never erased there; nothing was moved.
            CheckRefusedError: see `takedown`.
        """
        from rasura.registry.takedown.plan import plan_withdrawal

        plan = plan_withdrawal(
            self.store,
            _place(model, stack),
            read_lines(names),
            draft=self._draft("takedown.withdraw", reason),
            progress=self._progress,
            policy=_read_policy(policy),
        )
        return self._finish(plan, "takedown.withdraw", reason, policy, judge, pictures, key, dry_run=dry_run)

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
            reason: why, for the log.

        Raises:
            RefusedError: the mathematics says no; nothing is registered.
        """
        from rasura.registry.erase.rebase import rebase

        found = self._resolve(ids)
        guards = self._protected_beside(found, protect, onto_stack)
        how = self._anew(retain, retain_column, held_out, key, protect=guards, drop=drop)
        return rebase(self.store, found, how, self._draft("patch.rebase", reason), self._progress)

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
        return join(self.store, found, how, self._draft("patch.join", reason), self._progress)

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
        return retarget(self.store, found, str(base), how, draft=draft, progress=self._progress)

    @in_python
    def patches(self, *, concept: str | None = None, base: str | None = None) -> tuple[PatchRecord, ...]:
        """The registered patches, the oldest first; or those of a concept or base (`rasura patch list`).

        Raises:
            NotFoundError: no such base.
        """
        digest = None if base is None else self.store.base(base).digest
        return self.store.patches(concept=concept, base=digest)

    @in_python
    def patch(self, patch: str) -> Patch:
        """One patch, read from its stored bytes and verified: signature, trust, digests, numbers.

        It answers `rasura patch show` and `rasura patch verify`.

        Raises:
            NotFoundError, AmbiguousIdError: no such patch, or several.
            VerificationError: something about it is not good.
        """
        from rasura.registry.trust.verified_patch import load_verified

        return load_verified(self.store, self.store.resolve_patch(patch))

    @in_python
    def add_patch(self, folder: str | Path, *, dry_run: bool = False, reason: str = "") -> tuple[PatchId, bool]:
        """Register the patch in a folder, if a key trusted here has signed it (`rasura patch add`).

        Returns:
            Its identity, and whether it was not here before.

        Raises:
            VerificationError: a signature that does not count here, or bytes that were not signed.
        """
        return self.add_patches([folder], dry_run=dry_run, reason=reason)[0]

    @in_python
    def add_patches(
        self, folders: Iterable[str | Path], *, dry_run: bool = False, reason: str = ""
    ) -> tuple[tuple[PatchId, bool], ...]:
        """Register the patches in folders in one transaction: all of them, or none (`rasura patch add`).

        With `dry_run` they are verified, and nothing is written.

        Returns:
            For each its identity, and whether it was not here before.

        Raises:
            VerificationError: a signature that does not count here, or bytes that were not signed; `others` has those
                of further folders.
        """
        from rasura.registry.trust.verified_patch import add_folders

        given = [folders] if isinstance(folders, str | Path) else folders
        draft = self._draft("patch.add", reason)
        added = add_folders(self.store, [Path(folder) for folder in given], draft, dry_run=dry_run)
        return tuple((patch.patch_id, patch.new) for patch in added)

    @in_python
    def export(self, patch: Ids, folder: str | Path) -> None:
        """Write a patch as a signed folder for diffusers and model_signing (`rasura patch export`).

        Args:
            patch: a patch; of a list, each goes into a folder of its own inside, named after its concept and id.
            folder: a new one.

        Raises:
            ExistsError: the folder is not empty.
            InputError: an empty list.
        """
        from rasura.patches.format.patch import write_folder
        from rasura.registry.stacks.export import list_folders

        if isinstance(patch, str):
            write_folder(Path(folder), self.store.patch_files(patch))
        else:
            write_folder(Path(folder), list_folders(self.store, self._resolve(patch)))

    @in_python
    def export_kohya(self, patches: GoalRef | Iterable[str]) -> KohyaFile:
        """Patches as one unsigned file for ComfyUI and A1111 (`rasura patch export --format kohya`).

        Raises:
            InputError: nothing to export, or a patch that the format cannot hold.
        """
        from rasura.registry.stacks.export import export_kohya

        return export_kohya(self.store, self._goal(patches).patches)

    # Checks

    @in_python
    def check(
        self,
        patches: GoalRef | Iterable[str],
        *,
        leaving: GoalRef | Iterable[str] = (),
        policy: PolicyRef | None = None,
    ) -> Judged:
        """Check that patches keep their promises and do not disturb each other (`rasura patch check`).

        Args:
            patches: the set that stays.
            leaving: what is taken out of a larger set to get to this one; what that breaks refuses.
            policy: limits that must hold beside those in force.

        Raises:
            VerificationError: a signature, digest or number is not good, or a key does not count here.
            NotFoundError: a patch or its files are not here.
        """
        from rasura.registry.trust.check import judge_stack, merge_policies

        staying, gone = self._goal(patches).patches, self._goal(leaving).patches
        limits = merge_policies(self.store, _read_policy(policy))
        return _said(judge_stack(self.store, staying, limits, leaving=gone, progress=self._progress))

    @in_python
    def policy(self) -> Policy:
        """The policy in force (`rasura policy show`)."""
        return self.store.policy()

    @in_python
    def set_policy(self, policy: PolicyRef, *, dry_run: bool = False, reason: str = "") -> bool:
        """Put a policy in force: everything that is applied from now on is held to it (`rasura policy set`).

        Returns:
            False where it was in force already.
        """
        from rasura.registry.stacks.policy_file import put_in_force

        wanted = _read_policy(policy)
        assert wanted is not None
        return put_in_force(self.store, wanted, self._who(reason), dry_run=dry_run)

    # Models

    @in_python
    def apply(
        self,
        model: str | Path,
        ids: Ids,
        *,
        strength: Factor = 1,
        out: str | Path | None = None,
        policy: PolicyRef | None = None,
        dry_run: bool = False,
        reason: str = "",
    ) -> Receipt:
        """Apply patches to a model, together with those that are applied already: all or nothing.

        Args:
            model: the model.
            ids: the patches.
            strength: of each: a multiple of 1/16 from -4 to 4.
            out: patch a new copy there instead.
            policy: limits that must hold beside those in force.
            dry_run: only say what it would do; nothing is written.
            reason: why, for the log.

        Raises:
            InputError: no patch, or patches with a strength each: that is `switch`.
            AlreadyAppliedError: one of them is applied at another strength; nothing changed. At this one it stays.
            CheckRefusedError, VerificationError, BaseMismatchError, DriftError, HostError: nothing changed.
        """
        from rasura.patches.algebra.increment import Strength
        from rasura.registry.apply.operations import apply_to_folder
        from rasura.registry.live.arguments import listed_for_one_strength

        found, factor = self._resolve(listed_for_one_strength(ids)), Strength.of(strength)
        copy = None if out is None else Path(out)
        return apply_to_folder(
            self.store,
            Path(model),
            found,
            self._who(reason),
            strength=factor,
            out=copy,
            policy=_read_policy(policy),
            dry_run=dry_run,
        )

    @in_python
    def undo(
        self, model: str | Path | None = None, *, stack: str | None = None, dry_run: bool = False, reason: str = ""
    ) -> Undone:
        """Take the last motion of a model or a stack back; without either, the last one of all (`rasura undo`).

        A motion of its own, which the next undo takes back. Nobody is asked, whatever comes back. With `dry_run`
        nothing is written.

        Raises:
            InputError: both a model and a stack.
            NotFoundError: nothing was ever moved there.
            ConflictError: the last motion has no inverse.
        """
        from rasura.registry.standing.undo import plan_undo, undo

        planned = plan_undo(self.store, model=None if model is None else Path(model), stack=stack)
        return undo(self.store, planned, self._who(reason), dry_run=dry_run)

    @in_python
    def retire(self, ids: str | Iterable[str], *, dry_run: bool = False, reason: str = "") -> tuple[PatchId, ...]:
        """Retire patches: hidden from lists, left alone by nothing that is made later (`rasura patch retire`).

        With `dry_run` nothing is written.

        Returns:
            Those that were not retired before.

        Raises:
            ConflictError: one is in force on a model or in a stack.
        """
        from rasura.registry.standing.retire import retire

        return retire(self.store, self._resolve(ids), self._who(reason), dry_run=dry_run)

    @in_python
    def unretire(self, ids: str | Iterable[str], *, dry_run: bool = False, reason: str = "") -> tuple[PatchId, ...]:
        """Take retired patches back into use (`rasura patch unretire`).

        With `dry_run` nothing is written.

        Returns:
            Those that were retired.
        """
        from rasura.registry.standing.retire import unretire

        return unretire(self.store, self._resolve(ids), self._who(reason), dry_run=dry_run)

    @in_python
    def collect_garbage(self, *, hours: float = 24, dry_run: bool = False, reason: str = "") -> Garbage:
        """Remove stored bytes that no table, no entry of the log and no manifest refers to (`rasura gc`).

        Args:
            hours: leave alone what was stored since; its commit may be on its way.
            dry_run: only say what would be removed.
            reason: why, for the log.

        Raises:
            RegistryError: a blob cannot be removed.
        """
        from rasura.registry.standing.garbage import collect

        return collect(self.store, self._who(reason), quiet=timedelta(hours=hours), dry_run=dry_run)

    @in_python
    def hosts(self, *, look: bool = False) -> tuple[Placed, ...]:
        """The models that something was applied to, and what is in force on each (`rasura host list`).

        Args:
            look: hash what is on every model, and compare.
        """
        from rasura.registry.standing.standing import find_placed

        return find_placed(self.store, look=look, progress=self._progress)

    @in_python
    def standing(self, *, look: bool = False) -> Standing:
        """Where the registry stands: what is in force on which model, and what is open (`rasura status`).

        Args:
            look: hash what is on every model, and compare.
        """
        from rasura.registry.standing.standing import take_stock

        return take_stock(self.store, look=look, progress=self._progress)

    @in_python
    def revert(
        self,
        model: str | Path,
        ids: Ids | None = None,
        *,
        force: bool = False,
        policy: PolicyRef | None = None,
        dry_run: bool = False,
        reason: str = "",
    ) -> Receipt:
        """Take patches out of a model; with the last one, all that patches touched is the original again.

        Args:
            model: the model.
            ids: the patches; None: all of them.
            force: with all of them: put the originals back even if something else was changed.
            policy: limits for what stays beside those in force.
            dry_run: only say what it would do; nothing is written.
            reason: why, for the log.

        Raises:
            InputError: an empty list of patches.
            NotAppliedError: one of them is not applied; nothing changed.
            DriftError: the model is not what the registry last wrote; nothing changed.
        """
        from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
        from rasura.registry.apply.operations import revert
        from rasura.registry.live.arguments import listed

        found = None if ids is None else self._resolve(listed(ids))
        return revert(
            self.store,
            CheckpointHost.open(Path(model)),
            found,
            self._who(reason),
            policy=_read_policy(policy),
            force=force,
            dry_run=dry_run,
        )

    @in_python
    def switch(
        self,
        model: str | Path,
        stack: GoalRef | Iterable[str],
        *,
        out: str | Path | None = None,
        policy: PolicyRef | None = None,
        dry_run: bool = False,
        reason: str = "",
    ) -> Receipt:
        """Move a model to exactly these patches and strengths, in one motion (`rasura patch switch`).

        With `dry_run` nothing is written.

        Raises:
            RasuraError: as for `apply`; nothing changed.
        """
        from rasura.registry.apply.operations import switch_folder

        goal, copy = self._goal(stack), None if out is None else Path(out)
        return switch_folder(
            self.store,
            Path(model),
            goal,
            self._who(reason),
            out=copy,
            policy=_read_policy(policy),
            dry_run=dry_run,
        )

    @in_python
    def status(self, model: str | Path, *, deep: bool = False) -> Survey:
        """What is applied to a model, by hashing what is there (`rasura patch status`).

        Args:
            model: the model.
            deep: hash every patchable parameter and recompute the touched ones.

        Raises:
            HostError: no model that can be read.
        """
        from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
        from rasura.registry.apply.status import survey

        return survey(self.store, CheckpointHost.open(Path(model)), deep=deep, progress=self._progress)

    @in_python
    def plan(self, model: str | Path, stack: GoalRef | Iterable[str], *, policy: PolicyRef | None = None) -> Planned:
        """What would change if a model were switched to a stack; nothing is written (`rasura plan`).

        Raises:
            RasuraError: as for `switch`.
        """
        from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
        from rasura.registry.stacks.plan import make_plan

        return make_plan(self.store, CheckpointHost.open(Path(model)), self._goal(stack), policy=_read_policy(policy))

    @in_python
    def apply_plan(self, plan: Plan, *, reason: str = "") -> Receipt:
        """Do exactly what a plan says (`rasura patch apply PLAN`).

        Raises:
            ConflictError: the plan is stale; nothing changed.
            RasuraError: as for `switch`.
        """
        from rasura.registry.stacks.plan import apply_plan

        return apply_plan(self.store, plan, self._who(reason))

    @in_python
    def doctor(
        self, models: Iterable[str | Path] = (), *, dry_run: bool = False, reason: str = ""
    ) -> tuple[Finding, ...]:
        """Find what processes that died left behind, and put it right (`rasura doctor`).

        Args:
            models: which models to look at; none: all that the registry knows.
            dry_run: only say what would be repaired.
            reason: why, for the log.
        """
        from rasura.registry.doctor import examine

        folders = tuple(Path(model) for model in models)
        found = examine(self.store, folders, self._who(reason), dry_run=dry_run, progress=self._progress)
        return tuple(replace(finding, hint=python_hint(finding.hint)) for finding in found)

    # Stacks

    @in_python
    def create_stack(
        self,
        name: str,
        patches: GoalRef | Iterable[str] = (),
        *,
        base: str | None = None,
        dry_run: bool = False,
        reason: str = "",
    ) -> StackRecord:
        """Make a stack of patches of one base (`rasura stack create`); with `dry_run` nothing is written.

        Raises:
            ExistsError: there is one of this name.
            BaseMismatchError, ConflictError: patches of several bases, or two versions of one.
        """
        from rasura.registry.stacks.edit import create

        return create(
            self.store, name, dict(self._goal(patches).patches), self._who(reason), base=base, dry_run=dry_run
        )

    @in_python
    def add_to_stack(
        self,
        name: str,
        patches: GoalRef | Iterable[str],
        *,
        replace: bool = False,
        dry_run: bool = False,
        reason: str = "",
    ) -> StackRecord:
        """Add patches to a stack, or with `replace` give them another strength (`rasura stack add`).

        With `dry_run` nothing is written.

        Raises:
            NotFoundError: no such stack or patch.
            ConflictError: another version or strength is there, and `replace` was not asked for.
        """
        from rasura.registry.stacks.edit import add

        found = dict(self._goal(patches).patches)
        return add(self.store, name, found, self._who(reason), replace_old=replace, dry_run=dry_run)[0]

    @in_python
    def remove_from_stack(self, name: str, ids: Ids, *, dry_run: bool = False, reason: str = "") -> StackRecord:
        """Take patches out of a stack; models that have them keep them (`rasura stack remove`).

        With `dry_run` nothing is written.

        Raises:
            NotFoundError: no such stack or patch.
        """
        from rasura.registry.stacks.edit import remove

        return remove(self.store, name, self._resolve(ids), self._who(reason), dry_run=dry_run)[0]

    @in_python
    def update_stack(
        self, name: str, *, dry_run: bool = False, reason: str = ""
    ) -> tuple[StackRecord, tuple[Update, ...]]:
        """Replace patches of a stack by the newest that supersede them (`rasura stack update`).

        With `dry_run` nothing is written.

        Raises:
            NotFoundError: no such stack.
        """
        from rasura.registry.stacks.edit import update

        return update(self.store, name, self._who(reason), dry_run=dry_run)

    @in_python
    def delete_stack(self, name: str, *, dry_run: bool = False, reason: str = "") -> StackRecord:
        """Delete a stack; its patches, and models that have them, stay as they are (`rasura stack delete`).

        With `dry_run` nothing is written.

        Raises:
            NotFoundError: no such stack.
        """
        from rasura.registry.stacks.edit import delete

        return delete(self.store, name, self._who(reason), dry_run=dry_run)

    @in_python
    def stacks(self) -> tuple[StackRecord, ...]:
        """All stacks (`rasura stack list`)."""
        return self.store.stacks()

    @in_python
    def stack(self, name: str) -> Overview:
        """A stack: patches, what supersedes them, where it is applied, and the verdict (`rasura stack show`).

        Raises:
            NotFoundError: no such stack.
        """
        from rasura.registry.stacks.overview import overview

        return overview(self.store, name)

    @in_python
    def lock_stack(self, name: str) -> LockFile:
        """Pin a stack by digests, base, policy and verdict; `to_bytes` is the lock file (`rasura stack lock`).

        Raises:
            CheckRefusedError: the composer refuses it.
        """
        from rasura.registry.stacks.lock_file import lock_stack

        return lock_stack(self.store, self.store.stack(name))

    # Bisection

    @in_python
    def bisect_start(self, stack: str, model: str | Path, *, reason: str = "") -> Step:
        """Begin to look for the patch of a stack that does harm (`rasura patch bisect start`).

        Raises:
            ConflictError: one is going on.
        """
        from rasura.registry.stacks.bisect import start

        return start(self.store, stack, Path(model), self._who(reason))

    @in_python
    def bisect_judge(self, judgement: Judgement, *, reason: str = "") -> Step:
        """Say how the model does now: `good`, `bad` or `skip` (`rasura patch bisect good`).

        Raises:
            NotFoundError: none is going on.
        """
        from rasura.registry.stacks.bisect import judge

        return judge(self.store, judgement, self._who(reason))

    @in_python
    def bisect_run(
        self, command: Callable[[], int], *, tell: Callable[[Step], None] = lambda _: None, reason: str = ""
    ) -> Step:
        """Let a function judge until the patch is found: 0 is good, 125 is skip (`rasura patch bisect run`).

        Args:
            command: looks at the model; an exit status, as `git bisect run` reads it.
            tell: told each step.
            reason: why, for the log.

        Raises:
            NotFoundError: none is going on.
        """
        from rasura.registry.stacks.bisect import run

        return run(self.store, command, self._who(reason), tell)

    @in_python
    def bisect_reset(self, *, leave: bool = False, reason: str = "") -> Bisection:
        """End a bisection; the model goes back to what it had (`rasura patch bisect reset`).

        Raises:
            NotFoundError: none is going on.
        """
        from rasura.registry.stacks.bisect import reset

        return reset(self.store, self._who(reason), leave=leave)

    # The Hub

    @in_python
    def push(
        self,
        ids: Ids,
        repo: str,
        *,
        base_model: str | None = None,
        licence: str | None = None,
        private: bool = False,
        endpoint: str | None = None,
        token: str | None = None,
        reason: str = "",
    ) -> hub.PushReceipt:
        """Push patches to a Hub repository, with a model card, as one commit (`rasura push`).

        Args:
            ids: the patches.
            repo: `org/name`.
            base_model: the base's id on the Hub; None: what the card says already.
            licence: for the model card; None: as signed, as the card says already, or as the base's page says.
            private: make the repository private if it is new.
            endpoint: the Hub; None: what huggingface_hub is set to.
            token: access token; None: what huggingface_hub is set to.
            reason: why, for the log.

        Raises:
            HubError: the Hub did not do what was asked.
            VerificationError: a patch that this registry would not apply.
        """
        from rasura import __version__
        from rasura.registry.hub.transfer import Remote, push_patches

        return push_patches(
            self.store,
            list(dict.fromkeys(self._resolve(ids))),
            repo,
            tool_version=__version__,
            base_model=base_model,
            licence=licence,
            private=private,
            remote=Remote(endpoint, token),
            draft=self._draft("patch.push", reason),
        )

    @in_python
    def pull(
        self,
        reference: str,
        *,
        only: Ids = (),
        endpoint: str | None = None,
        token: str | None = None,
        reason: str = "",
    ) -> Pull:
        """Pull the patches of a Hub repository that a key trusted here has signed (`rasura pull`).

        What is not trusted here raises nothing while something else is: it stands in `refused` of what is returned.

        Args:
            reference: `org/name` or `org/name@revision`.
            only: ids, beginnings of ids, or concepts of the patches that are wanted; none: all.
            endpoint: the Hub; None: what huggingface_hub is set to.
            token: access token; None: what huggingface_hub is set to.
            reason: why, for the log.

        Raises:
            HubError: the Hub did not do what was asked.
            VerificationError: no patch there counts here; nothing is registered.
            NotFoundError, AmbiguousIdError: what was named is not there, or is several.
        """
        from rasura.registry.hub.transfer import Remote, pull_patches

        draft = self._draft("patch.pull", reason)
        wanted = (only,) if isinstance(only, str) else tuple(only)
        return pull_patches(self.store, reference, only=wanted, remote=Remote(endpoint, token), draft=draft)

    # Evaluation

    @in_python
    def evaluate(self, request: EvaluationRequest, *, reason: str = "") -> Evaluated:
        """Draw the same prompts with and without patches, have them judged, and record the report.

        Limits that were not kept raise nothing: they stand in `missed` of what is returned.

        Raises:
            InputError: no patch, no judge, bad prompts, a label that the judge does not know.
            VerificationError, BaseMismatchError, DriftError: patches or base are not what they should be.
        """
        from rasura.evaluation.evaluate import evaluate
        from rasura.evaluation.evidence_report.kept_pictures import keep_with_cases
        from rasura.evaluation.report.recorded import record_evaluation

        found = evaluate(self.store, request, self._draft("base.add", reason), self._progress)
        record_evaluation(self.store, found.report, self._draft("evaluation.add", reason))
        keep_with_cases(self.store, found, self._who(reason))
        return found

    @in_python
    def evaluations(self, *, patch: str | None = None) -> tuple[EvaluationRecord, ...]:
        """Recorded evaluations, or those of a patch (`rasura evaluation list`).

        Raises:
            NotFoundError: no such patch.
        """
        return self.store.evaluations(None if patch is None else self.store.resolve_patch(patch))

    @in_python
    def evaluation(self, evaluation: str) -> EvaluationRecord:
        """One recorded evaluation by digest or abbreviation (`rasura evaluation show`).

        Raises:
            NotFoundError: no such evaluation.
        """
        return self.store.evaluation(evaluation)

    def _finish(  # noqa: PLR0917  # what both calls were given
        self,
        plan: TakedownPlan,
        action: str,
        reason: str,
        policy: PolicyRef | None,
        judge: str | None,
        pictures: int,
        key: str | None,
        *,
        dry_run: bool,
    ) -> tuple[TakedownPlan, tuple[Seen, ...], Done | None]:
        from rasura.evaluation.look import look_at_plan, require_unseen
        from rasura.registry.takedown.carry_out import carry_out

        seen = look_at_plan(plan, judge, n=pictures, progress=self._progress) if judge and plan.changes else ()
        if dry_run:
            return plan, seen, None
        require_unseen(seen)
        draft, limits = self._draft(action, reason), _read_policy(policy)
        return plan, seen, carry_out(self.store, plan, key=key, draft=draft, progress=self._progress, policy=limits)

    def _draft(self, action: str, reason: str) -> Draft:
        from rasura.registry._storage.records import Draft

        self.store.check_reason(reason)
        return Draft(self.actor, reason, action, "success")

    def _who(self, reason: str) -> Actor:
        from rasura.registry.apply.motion import Actor

        self.store.check_reason(reason)
        return Actor(self.actor, reason)

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

    def _protected(self, protect: Ids, onto_stack: str | None) -> tuple[list[PatchId], bool]:
        """The patches that were named, each once, and whether all were, which is not a name."""
        words = [protect] if isinstance(protect, str) else list(protect)
        stack = self.store.stack(onto_stack).patches if onto_stack is not None else ()
        named = self._resolve([*(word for word in words if word != "all"), *stack])
        return list(dict.fromkeys(named)), "all" in words

    def _protected_beside(self, ids: Sequence[PatchId], protect: Ids, onto_stack: str | None = None) -> list[PatchId]:
        """What these patches shall leave alone."""
        from rasura.registry.erase.rebase import find_all_others

        named, everything = self._protected(protect, onto_stack)
        return list(dict.fromkeys([*named, *(find_all_others(self.store, ids) if everything else ())]))

    def _resolve(self, ids: Ids) -> list[PatchId]:
        return [self.store.resolve_patch(i) for i in ([ids] if isinstance(ids, str) else ids)]

    def _goal(self, patches: GoalRef | Iterable[str]) -> Goal:
        """The set that was named; see the class."""
        from rasura.registry.apply.goal import Goal
        from rasura.registry.live.arguments import goal_from
        from rasura.registry.stacks.edit import members_of

        if isinstance(patches, str | Mapping):
            return goal_from(self.store, patches)
        found: Mapping[PatchId, Strength] = members_of(self.store, patches)
        return Goal("patches", None, found)


def _read_policy(given: PolicyRef | None) -> Policy | None:
    from rasura.registry.stacks.policy_file import read_policy

    return read_policy(Path(given)) if isinstance(given, str | Path) else given


def _said(judged: Judged) -> Judged:
    """The same, with reasons that name the next call."""
    from rasura.patches.checks.verdict import Accepted

    if isinstance(judged.verdict, Accepted):
        return judged
    reasons = tuple(replace(reason, hint=python_hint(reason.hint)) for reason in judged.verdict.reasons)
    return replace(judged, verdict=replace(judged.verdict, reasons=reasons))


def _place(model: str | Path | None, stack: str | None) -> Place:
    from rasura.registry.takedown.ground import Place

    if (model is None) == (stack is None):
        raise InputError("expected a model or a stack, one of the two", hint="rasura takedown --model MODEL")
    return Place(None if model is None else Path(model), stack)
