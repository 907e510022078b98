"""A case with all that a report can show, on the workshop's tiny model: no picture is drawn for it."""

import atexit
import functools
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from support.registries.workshop import ALICE, Workshop, copy_of, workshop_template

from rasura.evaluation.evidence_report.gather import About
from rasura.evaluation.evidence_report.kept_pictures import KEPT, PicturePair, Pictures
from rasura.evaluation.evidence_report.make_report import MadeReport, make_report
from rasura.evaluation.report.recorded import record_evaluation
from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import JsonValue
from rasura.patches._io.sha256 import digest_of
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply.operations import apply
from rasura.registry.cases.clock import parse_deadline
from rasura.registry.cases.handle_case import open_case
from rasura.registry.registry import Registry

ASKED = "V. Kolář <v@example.org>"
WROTE = "Please take my dog out of your pictures.\n<script>alert('no')</script> & so on."
NAMES = ("report.html", "report.json")


def picture(colour: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(data, format="PNG")
    return data.getvalue()


def score(group: str, axis: str, label: str, kind: str, right: tuple[int, int]) -> dict[str, JsonValue]:
    before, after = right
    shares = {"base": f"{before / 12:.4f}", "patched": f"{after / 12:.4f}"}
    ends = {"base_low": "0.6000", "base_high": "0.9900", "patched_low": "0.0100", "patched_high": "0.3500"}
    counts = {"n": 12, "base_right": before, "patched_right": after, "both_right": after}
    return {"group": group, "axis": axis, "kind": kind, "label": label, **counts, **shares, **ends}


def evaluation(shop: Workshop, base: str) -> bytes:
    scores = [
        score("forget", "object", "dog", "direct", (11, 1)),
        score("forget", "object", "dog", "paraphrase", (9, 2)),
        score("retain", "object", "", "direct", (12, 12)),
        score("held_out", "style", "", "direct", (10, 9)),
    ]
    attack = {"axis": "object", "label": "dog", "attack": "suffix", "model": "patched", "tries": 12, "successes": 3}
    attacks = [{**attack, "rate": "0.2500", "rate_low": "0.0800", "rate_high": "0.5300", "prompt": "a dog xyz"}]
    summary = {"forget": "0.9091", "retain": "1.0000", "held_out": "0.9000"}
    body = {"scores": scores, "attacks": attacks}
    head = {
        "format": "rasura-evaluation/1",
        "base": base,
        "patches": {shop.dog: 16, shop.photo: 16},
        "judge": "a small classifier",
    }
    return canonical_json.dumps({**head, "summary": summary, "body": body})  # type: ignore[dict-item]


def look_at(registry: Registry, shop: Workshop, case: str) -> None:
    """Record an evaluation and keep pictures of it with the case, as `rasura evaluate --case` does."""
    data = evaluation(shop, registry.patch(shop.dog).base)
    record_evaluation(registry, data, Draft("alice", "", "evaluation.add", "success"))
    pairs = tuple(
        PicturePair(group, f"a picture of a {what}", what, picture("brown"), what, picture(colour), seen)
        for group, what, colour, seen in (
            ("forget", "dog", "grey", "cat"),
            ("retain", "horse", "brown", "horse"),
            ("held_out", "boat", "brown", "boat"),
        )
    )
    pictures = Pictures(digest_of(data), pairs)
    item = {f"{KEPT}{pictures.evaluation[:12]}": pictures.to_bytes()}
    registry.add_to_case(case, item, Draft("alice", "", "case.add", "success"))


def fill(shop: Workshop, *, looked: bool = True, case: str = "118") -> None:
    """A case that was received, acted on, and looked at."""
    with shop.open() as registry:
        received = registry.now()
        due = parse_deadline("48h", received)
        open_case(registry, case, ALICE, received=received, due=due, requester=ASKED, text=WROTE.encode())
        with registry.belonging(case):
            apply(registry, shop.host(), [shop.dog, shop.photo], ALICE)
            if looked:
                look_at(registry, shop, case)


@functools.lru_cache(maxsize=2)
def shared_case(*, looked: bool = True) -> Workshop:
    """Such a case, once in a process: nobody writes to it."""
    folder = Path(tempfile.mkdtemp(prefix="rasura-case-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shop = copy_of(workshop_template(), folder / "shop")
    fill(shop, looked=looked)
    return shop


@functools.lru_cache(maxsize=4)
def shared_report(*, looked: bool = True, key: str | None = None, withhold: bool = False) -> MadeReport:
    """A report of it."""
    return made(shared_case(looked=looked), key=key, withhold=withhold)


def made(shop: Workshop, about: About | None = None, **options: object) -> MadeReport:
    with shop.open() as registry:
        return make_report(registry, about or About("case", "118"), version="1", names=NAMES, **options)  # type: ignore[arg-type]
