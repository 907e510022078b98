"""What registered patches leave of their concepts at most, computed from the base's weights and encoder.

What a manifest claims is not looked at. What cannot be computed is said, in sentences: without the base's weights
nothing is; without its text encoder there are the stored combinations of a concept's columns, and no mixtures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rasura.patches.checks.kernels.certificate import Certificate, certify
from rasura.patches.checks.kernels.footprint import find_measured_only, spaces_of
from rasura.patches.errors import ConceptError, InputError, RasuraError
from rasura.patches.format.manifest_parts import TEXT
from rasura.patches.format.member import Member
from rasura.patches.format.patch import Patch
from rasura.patches.format.patch_tensors import Pairs
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.models.base_identity import identify
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.solving.encode_words import are_stored, encode_words
from rasura.patches.types import SHORT
from rasura.registry.registry import Registry
from rasura.registry.trust.check import find_originals

__all__ = ["Certified", "Covered", "certify_patches"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Covered:
    """The set that shares are certified over.

    Attributes:
        also: other words for the concept, beside its own.
        ball: radius around the mixtures, in units of the embedding; None: the largest that is safe, and no other.
    """

    also: tuple[str, ...] = ()
    ball: float | None = None

    def __post_init__(self) -> None:
        if not all(word.strip() for word in self.also):
            raise ConceptError("another word for the concept is empty: expected a word or phrase", hint="--also TEXT")
        if self.ball is not None and not 0 <= self.ball < float("inf"):
            raise InputError(f"a ball of radius {self.ball:g}: expected a finite number, 0 or more", hint="--ball 1.5")


@dataclass(frozen=True, slots=True)
class Certified:
    """What was computed.

    Attributes:
        certificates: one a patch and space.
        missing: what was not looked at, in sentences.
    """

    certificates: tuple[Certificate, ...]
    missing: tuple[str, ...]


def certify_patches(
    registry: Registry, stack: Sequence[Member], covered: Covered | None = None, progress: Progress = lambda *_: None
) -> Certified:
    """The certificates of every concept of a stack, under the whole stack.

    Args:
        registry: where the base is known.
        stack: verified patches of one base.
        covered: the set; None: each concept's own columns.
        progress: told what is going on.

    Raises:
        ConceptError: another word that no prompt of a patch can hold.
    """
    wanted = covered or Covered()
    originals = find_originals(registry, stack)
    if originals is None:
        return Certified((), ("the base's weights are not at hand: no share is certified",))
    opened = _open_encoder(registry, stack[0].patch)
    found: list[Certificate] = []
    missing = [] if opened else ["the base's text encoder is not at hand: mixtures, balls and other words are not seen"]
    for done, member in enumerate(stack):
        progress("certifying", done, len(stack))
        columns: Pairs | None = None
        words = _spoken(member.patch)
        if opened is not None and TEXT in spaces_of(member.patch):
            columns, words, odd = _columns(opened, member.patch, wanted.also)
            missing += odd
        found += certify(member, stack, originals, columns=columns, words=words, radius=wanted.ball)
        if bare := find_measured_only(member.patch):
            missing.append(
                f"{member.patch_id[:SHORT]}: {len(bare)} parameters promise nothing that algebra could check"
            )
    progress("certifying", len(stack), len(stack))
    return Certified(tuple(found), tuple(missing))


def _columns(
    encoder: TextEncoder, patch: Patch, also: Sequence[str]
) -> tuple[Pairs | None, tuple[str, ...], list[str]]:
    """The columns of the concept and of other words; None with a reason where they are not those of the patch."""
    spoken = _spoken(patch)
    words = (*spoken, *also)
    reading = encoder.reading_for(patch.manifest.eraser.options.get("layers", ""))
    own = encode_words(reading, patch, spoken)
    if not are_stored(own, patch):
        said = f"{patch.patch_id[:SHORT]} has columns of its own: mixtures, balls and other words are not seen"
        return None, spoken, [said]
    if not also:
        return own, words, []
    try:
        return encode_words(reading, patch, words), words, []
    except ConceptError as error:
        error.hint = "--also TEXT"  # the patch's own words were encoded just before
        raise


def _spoken(patch: Patch) -> tuple[str, ...]:
    """Everything that the patch's concept is called: its columns are those of all its names."""
    return (patch.manifest.concept.text, *patch.manifest.names)


def _open_encoder(registry: Registry, patch: Patch) -> TextEncoder | None:
    """The text encoder that the patch was made with; None where it is not at hand, or is another one."""
    base = patch.manifest.base
    try:
        host = CheckpointHost.open(Path(registry.base(base.sha256).source))
        encoder = TextEncoder.pristine(host)
        identity = identify(host, encoder.tokenizer_state())
    except RasuraError:
        return None
    same = (identity.text_encoder, identity.tokenizer) == (base.text_encoder, base.tokenizer)
    return encoder if same else None
