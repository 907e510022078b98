"""Retain files as people have them, and as they go wrong."""

import hashlib
import os
from pathlib import Path

import pytest

from rasura.patches.errors import NotFoundError, RetainSetError
from rasura.patches.prompts.retain_set import RETAIN_LIMIT, RetainSet, load_retain_set


def load(folder: Path, text: str | bytes, name: str = "retain.txt", column: str | None = None) -> RetainSet:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_retain_set(folder / name, column)


GOOD: dict[str, tuple[str, str | bytes, str | None, tuple[str, ...]]] = {
    "one a line": ("r.txt", "dog\ncat\n", None, ("dog", "cat")),
    "without a newline at the end": ("r.txt", "dog", None, ("dog",)),
    "blank lines and spaces": ("r.txt", "\n  dog \n\n\tVan  Gogh\n", None, ("dog", "Van Gogh")),
    "comments": ("r.txt", "# animals\ndog\n  # cat\nc# major\n", None, ("dog", "c# major")),
    "twice": ("r.txt", "dog\ncat\ndog\n dog\n", None, ("dog", "cat")),
    "Windows": ("r.txt", b"\xef\xbb\xbfdog\r\ncat\r\n", None, ("dog", "cat")),
    "any language": ("r.txt", "犬\nنان\nchâteau\n", None, ("犬", "نان", "château")),
    "commas in a text file": ("r.txt", "dog, brown\n", None, ("dog, brown",)),
    "CSV with the column": ("r.csv", "id,concept\n1,dog\n2,cat\n", None, ("dog", "cat")),
    "CSV with an empty cell": ("r.csv", "id,concept\n1,\n2,cat\n", None, ("cat",)),
    "CSV with a column of choice": ("r.csv", "concept,alt\ndog,hound\n", "alt", ("hound",)),
    "CSV with quotes": ("r.CSV", 'concept\n"dog, brown"\n"say ""hi"""\n', None, ("dog, brown", 'say "hi"')),
    "CSV of prompts": ("r.csv", "id,prompt\n1,a dog in the sun\n", None, ("a dog in the sun",)),
    "JSONL of concepts": ("r.jsonl", '{"concept": "dog"}\n\n{"concept": "cat", "x": 1}\n', None, ("dog", "cat")),
    "JSONL of prompts": ("r.jsonl", '{"seed": 1, "prompt": "a dog, brown"}\n', None, ("a dog, brown",)),
    "JSONL with a field of choice": ("r.ndjson", '{"concept": "dog", "alt": "hound"}\n', "alt", ("hound",)),
    "JSONL of texts": ("r.jsonl", '"dog"\n"犬"\n', None, ("dog", "犬")),
    "a line of JSON": ("r.jsonl", '["dog"]\n', None, ("dog",)),
}


@pytest.mark.parametrize("name", GOOD)
def test_retain_files_are_read(name: str, tmp_path: Path) -> None:
    file, text, column, expected = GOOD[name]
    found = load(tmp_path, text, file, column)
    assert found.concepts == expected
    assert found.source == file
    assert found.removed == ()


BAD: dict[str, tuple[str, str | bytes, str]] = {
    "empty": ("r.txt", "", "names no concept"),
    "only comments and spaces": ("r.txt", "# nothing\n   \n", "names no concept"),
    "binary": ("r.txt", bytes(range(256)), "not UTF-8 text"),
    "a picture": ("r.txt", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "not UTF-8 text"),
    "NUL bytes": ("r.txt", b"\x00\x00\x00\x00", "no plain text"),
    "an escape sequence": ("r.txt", "dog\n\x1b[31mcat\n", "no plain text"),
    "UTF-16": ("r.txt", "dog\n".encode("utf-16"), "not UTF-8 text"),
    "Latin-1": ("r.txt", "château\n".encode("latin-1"), "not UTF-8 text"),
    "an empty CSV": ("r.csv", "", "names no concept"),
    "a CSV of a header": ("r.csv", "concept\n", "names no concept"),
    "a CSV of blanks": ("r.csv", "concept\n\n \n", "names no concept"),
    "a CSV of one endless field": ("r.csv", 'concept\n"' + "x" * 200_000, "is no CSV"),
    "JSONL that is none": ("r.jsonl", '{"concept": "dog"}\nhello\n', "line 2 is no JSON: expected JSON, got 'hello'"),
    "JSONL of numbers": ("r.jsonl", "1\n", "line 1 holds 1: expected a text or an object"),
    "JSONL of lists": ("r.jsonl", '["dog"]\n["cat"]\n', "line 1 holds"),
    "JSONL with a row without the field": (
        "r.jsonl",
        '{"concept": "a"}\n{"prompt": "b"}\n',
        "line 2 has no column 'concept'",
    ),
    "JSONL with a number for a text": ("r.jsonl", '{"concept": 7}\n', "line 1 holds 7 in 'concept': expected a text"),
    "JSONL nested without end": ("r.jsonl", "[" * 100_000, "line 1 is no JSON"),
    "a CSV of an endless header": ("r.csv", "x" * 200_000 + "\n", "is no CSV"),
}


@pytest.mark.parametrize("flaw", BAD)
def test_retain_files_are_refused(flaw: str, tmp_path: Path) -> None:
    file, text, expected = BAD[flaw]
    with pytest.raises(RetainSetError, match=expected) as caught:
        load(tmp_path, text, file)
    assert len(caught.value.message) < 500
    assert caught.value.hint.startswith("--retain")


@pytest.mark.parametrize(
    ("name", "text", "whole"),
    [
        ("r.txt", "dog\n", False),
        ("r.csv", "concept\ndog\n", False),
        ("r.csv", "caption\ndog\n", True),
        ("r.jsonl", '{"prompt": "dog"}\n', True),
        ("r.jsonl", '"dog"\n', False),
    ],
)
def test_lines_of_a_prompt_column_are_whole_prompts(name: str, text: str, whole: bool, tmp_path: Path) -> None:
    assert load(tmp_path, text, name).whole is whole


def test_repeated_lines_are_counted(tmp_path: Path) -> None:
    assert load(tmp_path, "dog\ncat\n dog\n\ndog\n").repeated == 2
    assert load(tmp_path, "dog\ncat\n").repeated == 0


def test_strict_refuses_what_would_be_left_out(tmp_path: Path) -> None:
    found = load(tmp_path, "dog\ncat\n")
    with pytest.raises(RetainSetError, match=r"retain.txt names a target: dog"):
        found.without(["dog"], strict=True)
    with pytest.raises(RetainSetError, match="repeats 1 lines"):
        load(tmp_path, "cat\ncat\n").without(["dog"], strict=True)
    assert found.without(["bird"], strict=True).concepts == ("dog", "cat")


def test_a_million_lines_are_read_in_bounded_time_and_compared_with_targets(tmp_path: Path) -> None:
    found = load(tmp_path, "".join(f"concept number {i}\n" for i in range(1_000_000)))
    left = found.without(["number 77", "van gogh"])
    assert len(found.concepts) == 1_000_000
    assert left.removed == ("concept number 77",)


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(RetainSetError, match="no text column 'animal'") as caught:
        load(tmp_path, "id,concept\n1,dog\n", "r.csv", "animal")
    assert "'id', 'concept'" in caught.value.message
    assert caught.value.hint == f"--retain {tmp_path}/r.csv:COLUMN"


def test_files_that_are_none_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, kind in (
        ("missing.txt", NotFoundError),
        ("link", RetainSetError),
        ("pipe", RetainSetError),
        (".", RetainSetError),
    ):
        with pytest.raises(kind):
            load_retain_set(tmp_path / name)


def test_an_oversized_file_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "r.txt").touch()
    os.truncate(tmp_path / "r.txt", RETAIN_LIMIT + 1)
    with pytest.raises(RetainSetError, match="at most"):
        load_retain_set(tmp_path / "r.txt")


SET = RetainSet(
    "r.txt",
    ("Snoopy Dog", "hotdog", "Van  Gogh", "vincent van gogh's chair", "C++ code", "c", "cafe\u0301", "Hello Kitty"),
)
REMOVED = {
    "dog": {"Snoopy Dog"},
    "DOG": {"Snoopy Dog"},
    " dog ": {"Snoopy Dog"},
    "van gogh": {"Van  Gogh", "vincent van gogh's chair"},
    "van\u00a0gogh": {"Van  Gogh", "vincent van gogh's chair"},
    "C++": {"C++ code"},
    "c": {"C++ code", "c"},
    "café": {"cafe\u0301"},
    "kit": set(),
    ".*": set(),
}


@pytest.mark.parametrize("target", REMOVED)
def test_concepts_that_name_a_target_are_taken_out(target: str) -> None:
    left = SET.without([target])
    assert set(left.removed) == REMOVED[target]
    assert left.concepts == tuple(c for c in SET.concepts if c not in REMOVED[target])
    assert left.source == SET.source


def test_a_set_of_nothing_but_targets_is_refused() -> None:
    with pytest.raises(RetainSetError, match="nothing but the concepts to erase"):
        RetainSet("r.txt", ("dog", "big Dog", "cat")).without(["dog", "CAT"])


def test_what_was_taken_out_adds_up() -> None:
    once = SET.without(["dog"]).without(["kitty"])
    assert once.removed == ("Snoopy Dog", "Hello Kitty")


def test_the_digest_is_that_of_the_concepts_one_a_line() -> None:
    found = RetainSet("any name", ("dog", "café"))
    assert found.sha256 == hashlib.sha256("dog\ncafé\n".encode()).hexdigest()
    assert found.sha256 != RetainSet("any name", ("café", "dog")).sha256
    assert RetainSet("r", ("ab",)).sha256 != RetainSet("r", ("a", "b")).sha256
