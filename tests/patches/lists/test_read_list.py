"""Lists as people have them: each is read as its author meant it, or refused with its line."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasura.patches.errors import ListError, NotFoundError
from rasura.patches.lists.list_rows import read_rows
from rasura.patches.lists.list_text import read_list_text
from rasura.patches.lists.read_list import TextList, read_list
from rasura.patches.lists.role import ANCHORS, HELD_OUT_FILE, RETAIN, TEMPLATES, Role

VECTORS = Path(__file__).parents[2] / "vectors" / "lists"

FOUND: dict[str, tuple[str, tuple[str, ...], bool]] = {
    "objects.json": ("", ("kettle", "boat"), False),
    "semicolons.csv": ("", ("kettle", "boat, small"), False),
    "tabs.tsv": ("", ("kettle", "boat"), False),
    "separator-inside.jsonl": ("", ("lamp kite", "boat"), False),
    "number-first.csv": (":text", ("a red kettle on a shelf", "two boats by the pier"), False),
    "number-first.csv ": (":text=prompt", ("a red kettle on a shelf", "two boats by the pier"), True),
    "only-dogs.txt": (":prompt", ("a dog on a hill", "a dog in a boat"), True),
}
REFUSED = {
    "number-first.csv": "has no column concept or prompt or caption: expected the name of one; its columns are "
    "'image_id', 'text'",
    "number-first.csv ": "holds only numbers in 'image_id'",
    "no-header.csv": "line 1 begins with 'glass kettle near a lamp', which is no column that is known",
    "categories.json": "has no column concept or prompt or caption",
    "categories.json ": "line 2 holds ['a photo of a kettle', 'a drawing of a kettle'] in 'kettle'",
    "open-comma.csv": "line 2 has 2 cells, its header 1 column",
    "concept-twice.csv": "line 1 names the column 'concept' twice",
    "pointer.csv": "is a Git LFS pointer",
    "quoted-templates.txt": "line 1 stands in quotes",
}


@pytest.mark.parametrize("name", FOUND)
def test_real_lists_are_read(name: str) -> None:
    behind, texts, whole = FOUND[name]
    found = read_list(f"{VECTORS / name.strip()}{behind}", RETAIN)
    assert (found.texts, found.whole) == (texts, whole)


def test_a_column_of_prompts_is_one_of_whole_prompts_for_any_list() -> None:
    for role in (RETAIN, HELD_OUT_FILE):
        found = read_list(VECTORS / "long-prompt.csv", role)
        assert (found.whole, found.columns, list(found.lines)) == (True, ("prompt",), [2])


@pytest.mark.parametrize("name", REFUSED)
def test_real_lists_are_refused(name: str) -> None:
    behind = {"categories.json ": ":kettle", "number-first.csv ": ":image_id"}.get(name, "")
    with pytest.raises(ListError) as caught:
        read_list(f"{VECTORS / name.strip()}{behind}", TEMPLATES if "templates" in name else RETAIN)
    assert name.strip() in caught.value.message
    assert REFUSED[name].replace("line 2 holds", "holds") in caught.value.message
    assert caught.value.hint


def read(folder: Path, name: str, text: str | bytes, behind: str = "", role: Role = RETAIN) -> TextList:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_list(f"{folder / name}{behind}", role)


GOOD: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "two columns, row by row": ("r.csv", "a,b\nx,y\nz,\n", ":a,b", ("x", "y", "z")),
    "a column with a comma in its name": ("r.csv", '"a,b",c\nx,y\n', ":a,b", ("x",)),
    "every column": ("r.json", '{"kettle": ["a", "b"], "boat": ["c"]}', ":*", ("a", "b", "c")),
    "an array among other things": ("r.json", '{"version": 2, "concepts": ["dog", "cat"]}', "", ("dog", "cat")),
    "an array of texts": ("r.json", '[\n "dog",\n "cat"\n]', "", ("dog", "cat")),
    "JSON in a text file": ("r.txt", '["dog", "cat"]', "", ("dog", "cat")),
    "JSON lines in a .json file": ("r.json", '{"concept": "dog"}\n{"concept": "cat"}\n', "", ("dog", "cat")),
    "an array in a .jsonl file": ("r.jsonl", '[{"concept": "dog"},\n{"concept": "cat"}]', "", ("dog", "cat")),
    "a list in YAML": ("r.yaml", "- dog\n- cat\n", "", ("dog", "cat")),
    "objects in YAML": ("r.yml", "- concept: dog\n  id: 1\n", "", ("dog",)),
    "numbered lines": ("r.txt", "1. dog\n2. cat\n\n3. a big bird\n", "", ("dog", "cat", "a big bird")),
    "numbered from nought, with brackets": ("r.txt", "0) dog\n1) cat\n", "", ("dog", "cat")),
    "a club, not a number": ("r.txt", "1. FC Köln\n", "", ("1. FC Köln",)),
    "bullets": ("r.txt", "- dog\n- cat\n", "", ("dog", "cat")),
    "quotes inside": ("r.txt", '"Weird Al" Yankovic\n', "", ('"Weird Al" Yankovic',)),
    "a comma in a text file": ("r.txt", "Kestrel,Anna\n", "", ("Kestrel,Anna",)),
    "old line ends": ("r.txt", "dog\rcat\r", "", ("dog", "cat")),
    "a header in capitals, with a mark": ("r.csv", "\ufeffID,Concepts\n1,dog\n", "", ("dog",)),
    "what Excel is told": ("r.csv", "sep=;\nid;concept\n1;dog\n", "", ("dog",)),
    "blank lines in a table": ("r.csv", "\n\nconcept\n\ndog\n", "", ("dog",)),
    "a colon in the name": ("a:b.csv", "x,y\ndog,1\n", ":x", ("dog",)),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_can_be_read_in_one_way_is_read(name: str, tmp_path: Path) -> None:
    file, text, behind, texts = GOOD[name]
    assert read(tmp_path, file, text, behind).texts == texts


BAD: dict[str, tuple[str, str | bytes, str, str]] = {
    "two columns that are known": ("r.csv", "concept,prompt\na,b\n", "", "has 'concept' and 'prompt'"),
    "concepts and prompts together": ("r.csv", "concept,prompt\na,b\n", ":concept,prompt", "gives whole prompts in"),
    "no such column": ("r.csv", "id,concept\n1,a\n", ":text", "has no text column 'text'; its columns are 'id'"),
    "columns of a text file": ("r.txt", "dog\n", ":text", "has no columns"),
    "numbers alone": ("r.txt", "17\n21\n", "", "holds only numbers"),
    "a table by another name": ("r.txt", "id,concept\n1,dog\n", "", "line 1 looks like the header of a table"),
    "a header by another name": ("r.txt", "\nconcept\ndog\n", "", "line 2 is 'concept'"),
    "tabs": ("r.txt", "dog\n1\tcat\n", "", "line 2 holds a tab"),
    "U+2028 in a text file": ("r.txt", "dog\u2028cat\n", "", "line 1 holds a line separator"),
    "broken JSON in a text file": ("r.txt", '[\n"dog",\n', "", "line 1 looks like JSON"),
    "a comma too much": ("r.json", '["dog",]', "", "line 1 is no JSON"),
    "a name twice": ("r.json", '[\n{"concept": "a", "concept": "b"}]', "", "line 2 is no JSON: expected each name"),
    "something behind": ("r.json", '["dog"] "cat"', "", "expected nothing behind the list"),
    "a number among texts": ("r.json", '["dog",\n7]', "", "line 2 holds 7"),
    "texts and objects": ("r.json", '["dog",\n{"concept": "cat"}]', "", "line 2 mixes texts and objects"),
    "half a character": ("r.json", '["\\ud800"]', "", "line 1 is no JSON: expected whole characters"),
    "NaN": ("r.json", "[NaN]", "", "got NaN"),
    "a scalar": ("r.json", '{"concept": "dog"}', "", "holds 'dog' in 'concept': expected an array"),
    "an open quote": ("r.csv", 'concept\ndog\n"cat\nbird\n', "", "line 3 opens a quote that is never closed"),
    "a quote closed late": ("r.csv", 'concept\n"dog\ncat"\n', "", "line 2 holds a text that goes on"),
    "a list that breaks off": ("r.txt", "1. dog\n2. cat\nbird\n", "", "line 3 breaks the list"),
    "a number left out": ("r.txt", "1. dog\n2. cat\n4. bird\n", "", "line 3 breaks the list"),
    "several separators": ("r.csv", "x;y,z\n1;2,3\n", "", "could be parted at several signs"),
    "a web page": ("r.csv", "\n<!DOCTYPE html><html>", "", "is a web page"),
    "a workbook": ("r.csv", b"PK\x03\x04" + bytes(40), "", "is a zip archive"),
    "a Parquet file": ("r.csv", b"PAR1" + bytes(40), "", "is a Parquet file"),
    "UTF-16": ("r.csv", "concept\ndog".encode("utf-16"), "", "UTF-16"),
    "Latin-1": ("r.txt", "dog\nchâteau\n".encode("latin-1"), "", "line 2 is not UTF-8"),
    "YAML that is no list": ("r.yaml", "concept: dog\n", "", "is no list"),
    "YAML that runs": ("r.yaml", "- !!python/object/apply:os.system [ls]\n", "", "is no YAML"),
    "names that are none": ("r.yaml", "- {1: dog}\n", "", "names that are texts"),
}


@pytest.mark.parametrize("flaw", BAD)
def test_what_could_be_misread_is_refused_with_its_line(flaw: str, tmp_path: Path) -> None:
    file, text, behind, said = BAD[flaw]
    with pytest.raises(ListError) as caught:
        read(tmp_path, file, text, behind)
    assert said in caught.value.message
    assert file in caught.value.message
    assert len(caught.value.message) < 500
    assert caught.value.hint


def test_templates_are_texts(tmp_path: Path) -> None:
    for text in ("{}\n{} style\na {}\n", "{}\n", "a {}\n{}\n"):
        assert read(tmp_path, "t.txt", text, role=TEMPLATES).texts == tuple(text.split("\n")[:-1])


def test_a_file_is_called_what_it_is_for(tmp_path: Path) -> None:
    for role, said in ((HELD_OUT_FILE, "held-out file"), (ANCHORS, "file of anchors"), (TEMPLATES, "template file")):
        with pytest.raises(NotFoundError, match=f"^{said} .*nope does not exist") as caught:
            read_list(tmp_path / "nope", role)
        assert caught.value.hint.startswith(role.option)


def test_what_was_read_is_counted(tmp_path: Path) -> None:
    found = read(tmp_path, "r.csv", "id,concept\n1,dog\n2,\n3,cat\n4, dog \n")
    assert (found.rows, found.blank, found.repeated, found.comments) == (4, 1, 1, 0)
    assert (list(found.lines), found.columns, found.format) == ([2, 4], ("concept",), "CSV")
    assert found.place("cat") == "r.csv, line 4"
    assert read(tmp_path, "r.txt", "# animals\ndog\n").comments == 1


NAMES = st.sampled_from(["r.txt", "r.csv", "r.tsv", "r.json", "r.jsonl", "r.yaml", "noname"])
SIGNS = st.text(st.sampled_from("ab1 ,;\t\n\r\"'[]{}:#-*.\\ud8concept\u2028\x00é"), max_size=60)
BEHIND = st.sampled_from(["", ":prompt", ":*", ":concept", ":a,b", ":a=prompt", ":"])


@given(NAMES, st.one_of(st.binary(max_size=80), SIGNS.map(str.encode)), BEHIND)
def test_any_bytes_give_a_list_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes, behind: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        found = read(folder, name, data, behind)
    except ListError:
        return
    assert found.texts
    assert len(found.lines) == len(found.texts) == len(set(found.texts))
    assert all(text == " ".join(text.split()) for text in found.texts)
    assert found.rows >= len(found.texts) / max(1, len(found.columns))
    "".join(found.texts).encode()


WORDS = st.lists(
    st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=20)
    .map(lambda text: " ".join(text.split()))
    .filter(lambda text: bool(text) and not text.isnumeric()),
    min_size=1,
    max_size=8,
    unique=True,
).filter(lambda texts: any(any(sign.isalpha() for sign in text) for text in texts))


@given(WORDS)
def test_what_programs_write_is_read_as_it_was(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.getbasetemp()
    for name, separator in (("w.csv", ","), ("w.csv", ";"), ("w.tsv", "\t")):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=separator).writerows([("id", "concept"), *enumerate(texts)])
        assert read_list(folder / name, RETAIN).texts == tuple(texts)
    objects = [{"id": i, "concept": text} for i, text in enumerate(texts)]
    for name, text in (
        ("w.json", json.dumps(texts)),
        ("o.json", json.dumps(objects, indent=1, ensure_ascii=False)),
        ("c.json", json.dumps({"concept": texts})),
        ("w.jsonl", "\n".join(json.dumps(item) for item in objects)),
    ):
        (folder / name).write_text(text, encoding="utf-8")
        assert read_list(folder / name, RETAIN).texts == tuple(texts)


def test_rows_of_a_table_come_one_after_the_other() -> None:
    path = VECTORS / "tabs.tsv"
    rows = read_rows(path, read_list_text(path, RETAIN), RETAIN)
    assert (rows.format, rows.columns) == ("TSV", ("id", "concept"))
    assert next(rows.items) == (2, {"id": "1", "concept": "kettle"})
