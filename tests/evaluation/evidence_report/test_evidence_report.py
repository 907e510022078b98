# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""The report: what it says, what it leaves out, that every byte of it is covered, and that anybody can read it."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.commandline import rasura
from support.evidence_reports import ASKED, NAMES, fill, made, shared_case, shared_report
from support.registries.workshop import ALICE, Workshop, workshop

from rasura.evaluation.evidence_report.gather import About, Gathered
from rasura.evaluation.evidence_report.kept_pictures import PicturePair, Pictures
from rasura.evaluation.evidence_report.make_report import MadeReport
from rasura.evaluation.evidence_report.page import write_page
from rasura.evaluation.evidence_report.page_style import STYLE
from rasura.evaluation.evidence_report.signed_report import END, START, verify_report
from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import AuditError, NotFoundError, RasuraError, UntrustedKeyError
from rasura.patches.format.signatures.signing_key import PrivateKey
from rasura.registry.apply.goal import Goal
from rasura.registry.apply.hosts.host_state import list_touched
from rasura.registry.apply.operations import apply, switch
from rasura.registry.apply.receipt import Actor
from rasura.registry.cases.handle_case import close_case, forget_case
from rasura.registry.log.notes.signed_note import VerifyKey
from rasura.registry.stacks.edit import create

SCHEMA = Path(__file__).parents[3] / "docs" / "schemas" / "rasura-report-1.json"
VOID = {"meta", "br", "img"}


def vkey(shop: Workshop) -> VerifyKey:
    with shop.open() as registry:
        return VerifyKey.parse(registry.log_vkey())


def change_one_touched_byte(shop: Workshop) -> None:
    with shop.open() as registry:
        name = list_touched(registry, [shop.dog])[0]
    place = shop.host()._layout.place(name, "")
    with (shop.model / place.file).open("r+b") as file:
        file.seek(place.start)
        byte = file.read(1)[0]
        file.seek(place.start)
        file.write(bytes([byte ^ 1]))


class Outline(HTMLParser):
    """What a program that reads a page aloud goes by."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.levels: list[int] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.levels.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data

    def every(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def report() -> MadeReport:
    return shared_report()


@pytest.fixture
def key() -> VerifyKey:
    """Of the log of every report here that is not of a registry of its own."""
    return vkey(shared_case())


def test_a_reader_finds_what_was_asked_done_measured_and_not_promised(report: MadeReport) -> None:
    outline = Outline(report.page.decode())
    assert outline.open == []
    for said in (
        "What was done about request 118",
        ASKED,
        "<script>alert('no')</script> & so on.",
        "before the deadline",
        "later a change that suppresses ",
        "came into force on the model “the model”: the model's weights were written",
        "Of 12 pictures that ask for it by name, a judge found it in 11 before and in 1 after.",
        "Of 12 pictures that ask for it in other words, a judge found it in 9 before and in 2 after.",
        "11 of 12 (92%; between 60% and 99%)",
        "1 of 12 (8%; between 1% and 35%)",
        "100% of what was named as to be kept and 90% of what was not named when the change was made",
        "3 of 12 (between 8% and 53%)",
        "Its touched weights were read back for this report, and are those that the registry wrote.",
        "Asked for “a picture of a dog”",
        "After: “cat”",
        "measured suppression with known limits",
        "Nothing was deleted from what the model has learnt.",
        "2 changes are in force together.",
        "rasura verify report.html \\\n  --vkey 'rasura/log/",
    ):
        assert said in outline.text, said


def test_what_was_asked_for_apart_is_told_apart(report: MadeReport) -> None:
    document = json.loads(report.twin)["document"]
    (seen,) = document["evaluations"]
    seen["scores"] = [{**row, "label": name} for row in seen["scores"][:2] for name in ("dog", "neon")]
    dog, photo = document["patches"]
    dog["approved_by"] = [{"name": "bob", "key_id": "a" * 64}]
    document["patches"].append({**photo, "id": "0" * 64})
    missed = PicturePair("forget", "a big animal", "dog", b"x", "butterfly", b"y", "butterfly")
    pictures = {seen["digest"]: Pictures(seen["digest"], (missed,))}
    said = Outline(write_page(Gathered(document, pictures, (), b"")).decode()).text
    assert "Of 12 pictures that ask for “dog” by name, a judge found it in 11 before and in 1 after." in said
    assert "Of 12 pictures that ask for “neon” in other words, a judge found it in 9 before and in 2 after." in said
    assert "It was not found before either: this pair says nothing of the change." in said
    assert "no model: another change for the same is" in said
    assert "bob" in said


def test_nothing_is_loaded_and_no_script_runs(report: MadeReport) -> None:
    outline = Outline(report.page.decode())
    assert "default-src 'none'" in str(outline.every("meta"))
    sources = [value for _, attributes in outline.tags for name, value in attributes.items() if name in {"src", "href"}]
    assert all(str(source).startswith(("data:image/png;base64,", "#")) for source in sources)
    assert outline.every("link") == outline.every("iframe") == []
    assert [script["type"] for script in outline.every("script")] == ["text/plain"]
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_a_program_that_reads_aloud_finds_its_way(report: MadeReport) -> None:
    outline = Outline(report.page.decode())
    assert outline.every("html") == [{"lang": "en"}]
    assert [len(outline.every(tag)) for tag in ("title", "main", "header", "footer", "nav", "h1")] == [1] * 6
    assert all(b - a <= 1 for a, b in zip(outline.levels, outline.levels[1:], strict=False))
    assert all(image.get("alt") for image in outline.every("img"))
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(link["href"])[1:] for link in outline.every("a")} <= set(ids)
    assert {str(each["aria-labelledby"]) for each in outline.every("section")} <= set(ids)
    assert all(cell["scope"] for cell in outline.every("th"))


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _themes() -> Iterator[dict[str, str]]:
    for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL):
        yield dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))


def test_every_text_stands_out_from_its_ground_in_light_in_dark_and_on_paper() -> None:
    """WCAG 2.2 §1.4.3: 4.5 to 1; §1.4.11: 3 to 1 for what is not text."""
    themes = list(_themes())
    assert len(themes) == 3
    for theme in themes:
        for ground in ("paper", "card"):
            for name, least in (("ink", 7), ("soft", 4.5), ("good", 4.5), ("bad", 4.5), ("mark", 4.5), ("bar", 3)):
                low, high = sorted((_luminance(theme[name]), _luminance(theme[ground])))
                assert (high + 0.05) / (low + 0.05) >= least, (name, ground, theme)


def test_the_twin_says_the_same_as_the_schema_lays_down(report: MadeReport, key: VerifyKey) -> None:
    value = json.loads(report.twin)
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(value, schema)
    found = verify_report(report.twin, vkey=key)
    assert (found.page, found.pinned, found.signer, found.entries) == (
        False,
        True,
        None,
        len(value["document"]["events"]),
    )
    assert verify_report(report.page, vkey=key).document == found.document == value["document"]
    for field in ("document", "note"):
        lacking = {name: part for name, part in value.items() if name != field}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(lacking, schema)


@pytest.mark.slow
def test_every_flip_of_a_byte_of_the_twin_shows() -> None:
    key = vkey(shared_case(looked=False))
    data = bytearray(shared_report(looked=False, key="alice").twin)
    assert verify_report(bytes(data), vkey=key).signer is not None
    for at in range(len(data)):
        data[at] ^= 1
        with pytest.raises(RasuraError):
            verify_report(bytes(data), vkey=key)
        data[at] ^= 1


def test_flips_of_the_page_show_wherever_they_are(report: MadeReport, key: VerifyKey) -> None:
    page = bytearray(report.page)
    verify_report(bytes(page), vkey=key)
    marks = [page.index(START) + at for at in range(len(START))] + [page.rindex(END) + at for at in range(len(END))]
    for at in sorted({*range(0, len(page), 211), *marks, *range(40), *range(len(page) - 40, len(page))}):
        page[at] ^= 1
        with pytest.raises(RasuraError):
            verify_report(bytes(page), vkey=key)
        page[at] ^= 1
    for longer in (bytes(page) + b" ", bytes(page) + START + END, bytes(page)[:-1]):
        with pytest.raises(RasuraError):
            verify_report(longer, vkey=key)


def test_a_report_of_another_log_or_by_another_key_is_refused(report: MadeReport, key: VerifyKey) -> None:
    other = VerifyKey(key.name, Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    with pytest.raises(AuditError, match="expected a log of key"):
        verify_report(report.twin, vkey=other)
    with pytest.raises(RasuraError, match="expected a signature by one of the keys"):
        verify_report(report.twin, keys=[PrivateKey.generate().public])


def test_a_second_signature_must_be_by_a_known_key() -> None:
    report = shared_report(looked=False, key="alice")
    found = verify_report(report.page)
    assert found.signer is not None
    assert verify_report(report.page, keys=[found.signer]).signer == found.signer
    with pytest.raises(UntrustedKeyError):
        verify_report(report.page, keys=[PrivateKey.generate().public])


def test_what_nobody_looked_at_is_said() -> None:
    text = Outline(shared_report(looked=False, key="alice").page.decode()).text
    assert "Not looked at." in text
    assert "what the change does was not measured" in text
    assert "Nothing was measured." in text


def test_what_is_withheld_or_forgotten_is_not_there(workshop: Workshop) -> None:
    page = shared_report(withhold=True)
    for data in (page.page, page.twin):
        assert b"v@example.org" not in data
        assert b"Please take my dog" not in data
    assert "withheld from this report" in Outline(page.page.decode()).text
    assert [
        image["alt"] for image in Outline(page.page.decode()).every("img") if "Map of" not in str(image["alt"])
    ] == []
    fill(workshop)
    with workshop.open() as registry:
        done = Actor("alice", "done")
        close_case(registry, "118", done)
        forget_case(registry, "118", done)
    text = Outline(made(workshop).page.decode()).text
    assert "deleted" in text
    assert "v@example.org" not in text


def test_a_model_that_lost_its_changes_is_found_out(workshop: Workshop) -> None:
    fill(workshop)
    about = About("model", str(workshop.model))
    assert "What is suppressed in the model" in Outline(made(workshop, about).page.decode()).text
    change_one_touched_byte(workshop)
    text = Outline(made(workshop, about).page.decode()).text
    assert "are NOT those that the registry wrote" in text
    assert "On no model was it found in force" in text


@pytest.mark.parametrize("strength", ["-1", "0.0625", "4"])
def test_what_stands_at_another_strength_is_not_said_to_be_suppressed(workshop: Workshop, strength: str) -> None:
    with workshop.open() as registry:
        goal = Goal("test", registry.patch(workshop.dog).base, Stack({
            workshop.dog: Strength.parse(strength), workshop.photo: Strength()
        }))  # fmt: skip
        switch(registry, workshop.host(), goal, ALICE)
    report = made(workshop, About("model", str(workshop.model)))
    said = Outline(report.page.decode()).text
    assert "Suppressed: “photo”." in said
    assert f"Not suppressed: “dog”, whose change stands at strength {strength}; it suppresses at strength 1." in said
    assert f"(at strength {strength})" in said
    assert "2 changes, 1 of them at another strength than 1, on the model" in said
    twin = json.loads(report.twin)
    jsonschema.validate(twin, json.loads(SCHEMA.read_text()))
    strengths = {patch["id"]: patch["strengths"] for patch in twin["document"]["patches"]}
    assert strengths == {workshop.dog: [strength], workshop.photo: ["1"]}


def test_nothing_that_stands_at_another_strength_alone_is_found_in_force(workshop: Workshop) -> None:
    with workshop.open() as registry:
        apply(registry, workshop.host(), [workshop.dog], ALICE, strength=Strength.parse("-1"))
        create(registry, "opposite", Stack({workshop.dog: Strength.parse("-1")}), ALICE)
    for about in (About("model", str(workshop.model)), About("stack", "opposite")):
        said = Outline(made(workshop, about).page.decode()).text
        assert "Suppressed: nothing." in said
        assert "The change for “dog” was put in at strength -1 on the model “the model”" in said
        assert "came into force" not in said
        assert "On no model was it found in force" in said


def test_what_was_measured_of_another_set_stays_out_of_what_stands_first(workshop: Workshop) -> None:
    fill(workshop)
    about, measured = About("model", str(workshop.model)), "a judge found it in 11 before"
    before = made(workshop, about)
    assert measured in Outline(before.page.decode()).text
    with workshop.open() as registry:
        base = registry.patch(workshop.dog).base
        weaker = Stack({workshop.dog: Strength(), workshop.photo: Strength(15)})
        switch(registry, workshop.host(), Goal("test", base, weaker), ALICE)
    after = made(workshop, about)
    said = Outline(after.page.decode()).text
    assert measured not in said
    assert "Nobody has looked at pictures of what is there now" in said
    assert "It is of other changes, or other strengths, than what is there now." in said
    current = [[e["current"] for e in json.loads(r.twin)["document"]["evaluations"]] for r in (before, after)]
    assert current == [[True], [False]]
    jsonschema.validate(json.loads(after.twin), json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize("about", [About("case", "119"), About("stack", "brand"), About("model", "nowhere")])
def test_what_is_not_there_has_no_report(about: About) -> None:
    with pytest.raises(NotFoundError):
        made(shared_case(), about)


def test_typed_written_verified_and_written_again(workshop: Workshop, tmp_path: Path) -> None:
    fill(workshop, looked=False)

    def typed(*arguments: str, cwd: Path = workshop.folder, code: int = 0) -> Any:
        run = rasura(*arguments, cwd=cwd)
        assert run.code == code, run.out + run.err
        return run

    said = typed("report", "--case", "118", "-o", "report.html")
    assert "wrote report.html and report.json: " in said.out
    assert "nobody has looked at pictures" in said.err
    typed("report", "--case", "118", "-o", "report.html", "--withhold")  # over one of its own kind
    key = str(vkey(workshop))
    for name in NAMES:
        (tmp_path / name).write_bytes((workshop.folder / name).read_bytes())
        assert "every byte of it" in typed("verify", name, "--vkey", key, cwd=tmp_path).out
    assert "no key was given from outside" in typed("verify", "report.json", cwd=tmp_path).err
    (tmp_path / "report.json").write_bytes((tmp_path / "report.json").read_bytes().replace(b"118", b"119", 1))
    typed("verify", "report.json", "--vkey", key, cwd=tmp_path, code=4)
    (workshop.folder / "notes.html").write_text("my notes")
    assert "notes.html" in typed("report", "--case", "118", "-o", "notes.html", code=7).err
    assert (workshop.folder / "notes.html").read_text() == "my notes"
    typed("report", "--case", "118", "--stack", "x", "-o", "a.html", code=2)
    typed("report", "--case", "118", "-o", "a.txt", code=2)
    typed("verify", code=2)


def test_what_was_only_computed_anew_is_not_said_to_be_asked_for(workshop: Workshop) -> None:
    here = workshop.folder
    (here / "retain.txt").write_text("painting\nof\n")
    received = ("--received", "2026-11-01T08:00:00Z", "--deadline", "90d")
    assert rasura("case", "open", "7", *received, cwd=here).code == 0
    erase = ("erase", "--base", "tiny", "--anchor", "cat", "--retain", "retain.txt", "--template", "{}")
    (van,) = rasura(*erase, "--concept", "van", "--case", "7", "--json", cwd=here).data["patches"]
    anew = rasura("patch", "rebase", workshop.dog, "--protect", van["id"], "--case", "7", "--json", cwd=here)
    assert anew.code == 0, anew.err
    (dog,) = anew.data["patches"]
    apply = rasura("patch", "apply", van["id"], "--model", "the model", "--case", "7", cwd=here)
    assert apply.code == 0, apply.err
    report = made(workshop, About("case", "7"))
    patches = {patch["id"]: patch for patch in json.loads(report.twin)["document"]["patches"]}
    assert [patches[i].get("anew") for i in (van["id"], dog["id"])] == [None, True]
    jsonschema.validate(json.loads(report.twin), json.loads(SCHEMA.read_text()))
    said = Outline(report.page.decode()).text
    assert "later a change that suppresses “van” came into force" in said
    assert "Changes that suppress “dog” were there before, by other requests; they were computed anew" in said
    assert "computed anew, not asked for here" in said
