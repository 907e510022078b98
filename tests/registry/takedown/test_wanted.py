"""What somebody wants taken down, and the files that say it."""

from pathlib import Path

import pytest

from rasura.patches.errors import ConceptError, InputError, NotFoundError
from rasura.registry.takedown.wanted import WantedConcept, check_wanted, keep_unnamed
from rasura.registry.takedown.wanted_file import MAX_BYTES, MAX_REQUESTS, read_wanted

FULL = WantedConcept("dog", "cat", ("a {}", "the {}"), "T-1", "2026-11-02", "estate of A. Painter", "2026-11-30")
CSV = (
    "concept,anchor,templates,ticket,received-at,requester,deadline\r\n"
    "dog,cat,a {} | the {},T-1,2026-11-02,estate of A. Painter,2026-11-30\r\n"
    '"Smith, J.",,,,,,\r\n'
)
YAML = """
- concept: dog
  anchor: cat
  templates: ["a {}", "the {}"]
  ticket: T-1
  received-at: 2026-11-02
  requester: estate of A. Painter
  deadline: 2026-11-30
- "Smith, J."
"""
JSONL = (
    '{"concept": "dog", "anchor": "cat", "templates": ["a {}", "the {}"], "ticket": "T-1", "received_at": "2026-11-02",'
    ' "requester": "estate of A. Painter", "deadline": "2026-11-30"}\n\n"Smith, J."\n'
)


@pytest.mark.parametrize(
    ("name", "text"),
    [("r.csv", CSV), ("r.yaml", YAML), ("r.YML", YAML), ("r.jsonl", JSONL)],
)
def test_every_spelling_says_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_wanted(tmp_path / name) == (FULL, WantedConcept("Smith, J."))


def test_names_alone_are_requests(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("1. dog\n2. Smith, J.\n")
    assert read_wanted(tmp_path / "r.txt") == (WantedConcept("dog"), WantedConcept("Smith, J."))


def test_templates_may_stand_in_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "objects.txt").write_text("a {}\n# no prompt\nthe {}\n")
    (tmp_path / "r.csv").write_text("concept,templates\ndog,objects.txt\ncat,\n")
    assert read_wanted(tmp_path / "r.csv", ("{}",)) == (
        WantedConcept("dog", templates=("a {}", "the {}")),
        WantedConcept("cat", templates=("{}",)),
    )


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("r.csv", "concept\n", "holds no request"),
        ("r.csv", "concept,ankor\ndog,cat\n", "expected concept, anchor"),
        ("r.csv", "concept,anchor\nSmith, J.,cat\n", "line 2 has 3 cells"),
        ("r.csv", 'concept\n"dog\n', "line 2 opens a quote"),
        ("r.csv", "anchor\ncat\n", "line 2: the concept is empty"),
        ("r.csv", "concept,deadline\ndog,next week\ncat,soon\n", "line 2: deadline of 'dog'"),
        ("r.csv", "concept,templates\ndog,a dog {} {}\n", "holds 2 times"),
        ("r.csv", "concept,templates\ndog,../secret.txt\n", "a file beside the requests"),
        ("r.csv", "concept,templates\ndog,/etc/passwd\n", "a file beside the requests"),
        ("r.yaml", "concept: dog\n", "is no list: expected one of texts or objects, got dict"),
        ("r.yaml", "- [dog]\n", "line 1 holds ['dog']: expected a text or an object"),
        ("r.yaml", "- !!python/object/apply:os.system [ls]\n", "is no YAML"),
        ("r.yaml", "- concept: {a: b}\n", "concept: expected a text"),
        ("r.jsonl", "{\n", "line 1 is no JSON"),
        ("r.jsonl", "[" * 100_000, "line 1 is no JSON"),
        ("r.jsonl", '{"concept": "dog", "templates": 3}\n', "templates: expected a list"),
        ("r.json", '{"concept": ["dog"]}', "is one object: expected a list of requests"),
        ("r.csv", "concept\n" + "dog\n" * (MAX_REQUESTS + 1), "at most 1000 requests"),
        ("r.csv", "concept\n" + "x" * MAX_BYTES, "cannot be read"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as refused:
        read_wanted(tmp_path / name)
    assert said in refused.value.message


def test_all_flaws_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("concept,deadline\ndog,soon\ncat,2026-11-30\npig,later\n")
    with pytest.raises(InputError, match=r"line 2: deadline of 'dog'.*line 4: deadline of 'pig'"):
        read_wanted(tmp_path / "r.csv")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        read_wanted(tmp_path / "r.csv")


def test_a_request_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(InputError, match=r"dog is named twice; pig would become a dog, which is to be erased, too"):
        check_wanted([WantedConcept("Dog"), WantedConcept("dog "), WantedConcept("pig", "a dog")])
    check_wanted([WantedConcept("dog", "cat"), WantedConcept("pig", "cat")])


def test_what_goes_into_the_log_is_bounded() -> None:
    with pytest.raises(InputError, match="ticket of 'dog'"):
        WantedConcept("dog", ticket="x" * 201)
    with pytest.raises(InputError, match="requester of 'dog'"):
        WantedConcept("dog", requester="a\x1bb")
    with pytest.raises(ConceptError):
        WantedConcept(" ")


def test_templates_that_name_another_erased_concept_are_left_out() -> None:
    assert keep_unnamed(("{}", "a Cat in {} style", "a category {}"), "neon", ["cat"]) == ("{}", "a category {}")
    with pytest.raises(InputError, match="every template of neon names another erased concept"):
        keep_unnamed(("a cat in {} style",), "neon", ["cat"])
