"""Pictures of an evaluation that are kept with a case: some pairs of each group, small, in the vault.

What a model drew may show a person, so pictures lie outside the log and go when the case is forgotten:

    {"format":"rasura-pictures/1", "evaluation":"<digest of its report>", "pairs":[{"group":"forget",
     "prompt":"…", "wanted":"dog", "before":"<base64>", "seen_before":"dog", "after":"<base64>", "seen_after":"cat"}]}
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rasura.evaluation.report.write_outputs import choose_pictures
from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields
from rasura.patches._io.sha256 import digest_of
from rasura.patches._io.strict_base64 import decode_base64, encode_base64
from rasura.patches.errors import ExistsError, FormatError
from rasura.registry._storage.files.vault import MAX_ITEM_BYTES
from rasura.registry._storage.records.records import Draft

if TYPE_CHECKING:
    from PIL.Image import Image

    from rasura.evaluation.report.evaluated import Evaluated
    from rasura.patches._io.json_fields import JsonValue
    from rasura.patches.types import Digest
    from rasura.registry.apply.receipt import Actor
    from rasura.registry.registry import Registry

__all__ = ["KEPT", "PicturePair", "Pictures", "keep_with_cases", "read_kept"]

FORMAT: Final = "rasura-pictures/1"
KEPT: Final = "look-"
_SIDE: Final = 256
"""Most pixels a side: enough to see what is there."""
_WHAT: Final = "pictures of a case"


@dataclass(frozen=True, slots=True)
class PicturePair:
    """One prompt, drawn before and after from the same noise.

    Attributes:
        group: forget, retain or held_out.
        prompt: what was asked for.
        wanted: what the picture should show.
        before: PNG of the base.
        seen_before: what the judge called it.
        after: PNG of the patched model.
        seen_after: what the judge called that.
    """

    group: str
    prompt: str
    wanted: str
    before: bytes
    seen_before: str
    after: bytes
    seen_after: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """Some pictures of one evaluation.

    Attributes:
        evaluation: digest of its report.
        pairs: the pictures.
    """

    evaluation: Digest
    pairs: tuple[PicturePair, ...]

    @classmethod
    def of(cls, evaluated: Evaluated) -> Pictures:
        """Some of each group, spread over what was asked."""
        compared = evaluated.compared
        pairs = tuple(
            PicturePair(
                compared.asked[i].group,
                compared.asked[i].shot.prompt,
                _words(compared.asked[i].wanted),
                encode_picture(compared.before[i]),
                _words({axis: compared.seen_before.answers[i][axis] for axis in compared.asked[i].wanted}),
                encode_picture(compared.after[i]),
                _words({axis: compared.seen_after.answers[i][axis] for axis in compared.asked[i].wanted}),
            )
            for i in choose_pictures(compared)
        )
        return cls(digest_of(evaluated.report), pairs)

    @classmethod
    def parse(cls, data: bytes) -> Pictures:
        """Read them.

        Raises:
            FormatError: they are none.
        """
        fields = Fields.of(canonical_json.loads(data, what=_WHAT, limit=MAX_ITEM_BYTES), _WHAT)
        fields.choice("format", (FORMAT,))
        found = cls(fields.digest("evaluation"), tuple(map(_read_pair, fields.records("pairs", limit=64))))
        fields.done()
        return found

    def to_bytes(self) -> bytes:
        """The document, RFC 8785 JSON."""
        pairs: list[JsonValue] = [
            {
                "group": pair.group,
                "prompt": pair.prompt,
                "wanted": pair.wanted,
                "before": encode_base64(pair.before),
                "seen_before": pair.seen_before,
                "after": encode_base64(pair.after),
                "seen_after": pair.seen_after,
            }
            for pair in self.pairs
        ]
        return canonical_json.dumps({"format": FORMAT, "evaluation": self.evaluation, "pairs": pairs})


def keep_with_cases(registry: Registry, evaluated: Evaluated, actor: Actor) -> None:
    """Keep some pictures with each case that the evaluation belongs to; those that a case has already stay."""
    for case_id in registry.cases_now:
        pictures = Pictures.of(evaluated)
        name = f"{KEPT}{pictures.evaluation[:12]}"
        draft = Draft(actor.name, actor.reason, "case.add", "success", details={"evaluation": pictures.evaluation})
        try:
            registry.add_to_case(case_id, {name: pictures.to_bytes()}, draft)
        except ExistsError:  # the same evaluation again draws the same pictures
            continue


def read_kept(said: Mapping[str, bytes]) -> dict[Digest, Pictures]:
    """The pictures among what a case holds, by evaluation."""
    found = (Pictures.parse(data) for name, data in sorted(said.items()) if name.startswith(KEPT))
    return {pictures.evaluation: pictures for pictures in found}


def encode_picture(picture: Image) -> bytes:
    """A PNG of at most 256 pixels a side."""
    if max(picture.size) > _SIDE:
        picture = picture.copy()
        picture.thumbnail((_SIDE, _SIDE))
    data = io.BytesIO()
    picture.convert("RGB").save(data, format="PNG", optimize=True)
    return data.getvalue()


def inline_picture(data: bytes) -> str:
    """A picture as the address of an `img`, PNG or JPEG."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _read_pair(fields: Fields) -> PicturePair:
    pair = PicturePair(
        fields.choice("group", ("forget", "retain", "held_out")),
        fields.text("prompt"),
        fields.text("wanted"),
        _read_picture(fields, "before"),
        fields.text("seen_before"),
        _read_picture(fields, "after"),
        fields.text("seen_after"),
    )
    fields.done()
    return pair


def _read_picture(fields: Fields, name: str) -> bytes:
    data = decode_base64(fields.text(name, limit=MAX_ITEM_BYTES))
    if data is None or not data.startswith(b"\x89PNG"):
        raise FormatError(f"{_WHAT}: {name}: expected a PNG in base64")
    return data


def _words(answer: Mapping[str, str]) -> str:
    return ", ".join(answer.values())
