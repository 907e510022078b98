"""The calls by which patches come in: solved here, adopted from another program, or in a colleague's bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rasura.api.arguments import Lines, read_held_out, read_lines
from rasura.api.calls._calls import Calls
from rasura.api.hints import in_python
from rasura.patches.errors import InputError
from rasura.patches.prompts.retain_set import load_retain_set
from rasura.registry.stacks.bundles.bundle import add_bundle, make_bundle, read_bundle

if TYPE_CHECKING:
    from rasura.patches.erasers.request import EraseRequest
    from rasura.registry.erase.adopt import Foundling
    from rasura.registry.erase.erase import Erased
    from rasura.registry.live.arguments import Ids
    from rasura.registry.stacks.bundles.bundle_contents import Bundle, TakenIn

__all__ = ["NewPatchCalls"]


class NewPatchCalls(Calls):
    """How a registry comes by patches."""

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
        truncate: bool = False,
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
        dry_run: bool = False,
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
            truncate: cut texts of files that are longer than the model reads.
            held_out: concepts on which leak is only measured.
            take: `separable`, what sees nothing that is kept, or `whole`, which promises nothing.
            leave_out: adopt without the changes that no patch can hold, instead of refusing.
            scale: the change is multiplied by this.
            rank: most detectors.
            energy: share of each layer's change to carry.
            tokens: which tokens stand for the concept.
            templates: prompts with one `{}`.
            rank_rule: cut of the retained spectrum.
            protect: patches whose targets must stay untouched; `all` as for `erase`.
            model: where the base lies now, if it was moved.
            licence: SPDX id or name for the patch.
            key: name of the key to sign with; None: the only one.
            dry_run: read, split and measure, and register nothing.
            reason: why, for the log.

        Raises:
            RefusedError: it changes what no patch can hold, or nothing of it is separable; logged as refused.
            RasuraError: anything else; logged as failed. Nothing is registered.
        """
        from rasura.patches.prompts.concept_prompts import Target
        from rasura.registry.erase.adopt import Adoption, Portion, adopt

        if take not in {"separable", "whole"}:
            raise InputError(f"take={take!r}: expected 'separable' or 'whole'")
        wanted = Adoption(
            Path(source),
            Target(concept, anchor),
            None if retain is None else load_retain_set(Path(retain), retain_column, truncate=truncate),
            method,
            Portion(take == "whole", leave_out, scale, energy, rank),
            tokens=tokens,
            templates=read_lines(templates),
            rank_rule=rank_rule,
            held_out=read_held_out(held_out, truncate=truncate),
            licence=licence,
        )
        named, everything = self._protected(protect, None)
        return adopt(
            self.store,
            str(base),
            wanted,
            key=key,
            draft=self._draft("patch.adopt", reason),
            progress=self._progress,
            model=None if model is None else Path(model),
            protect=named,
            protect_others=everything,
            dry_run=dry_run,
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
        return make_bundle(self.store, self._resolve(ids) if ids else (), stack=stack, evaluations=evaluations)

    @in_python
    def bundle(self, file: str | Path) -> Bundle:
        """What a bundle holds, and how its keys stand here; nothing is changed (`rasura bundle show`).

        Raises:
            VerificationError: it breaks its format, or a signature does not verify.
        """
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
        draft, keys = self._draft("patch.add", reason), read_lines(trust)
        return add_bundle(self.store, Path(file), draft, trust=keys, dry_run=dry_run)
