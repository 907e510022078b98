"""A person's prompts: what is read, and that a bad row is named by its line."""

import json
from pathlib import Path

import pytest
from support.models.tiny import tiny_model

from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.questions import Question
from rasura.evaluation.report.prompt_file import read_questions
from rasura.patches.errors import InputError, NotFoundError
from rasura.patches.models.text_encoders.text_encoder import TextEncoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    return TextEncoder.load(tiny_model(tmp_path_factory.mktemp("model") / "model"))


ROWS = (
    {"prompt": 'a dog, "wet"', "group": "forget", "object": "dog", "seed": 7, "kind": "rain"},
    {"prompt": "a cat in ink", "group": "retain", "object": "cat", "style": "ink"},
    {"prompt": "猫", "group": "held_out", "label": "cat"},
)
QUESTIONS = (
    Question("forget", Shot('a dog, "wet"', 7), {"object": "dog"}, "rain"),
    Question("retain", Shot("a cat in ink", 1), {"object": "cat", "style": "ink"}, "direct"),
    Question("held_out", Shot("猫", 2), {"label": "cat"}, "direct"),
)


def test_json_lines(tmp_path: Path, encoder: TextEncoder) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("\n\n".join(map(json.dumps, ROWS)) + "\n")
    assert read_questions(path, encoder) == QUESTIONS


def test_csv_says_the_same(tmp_path: Path, encoder: TextEncoder) -> None:
    path = tmp_path / "p.CSV"
    path.write_text(
        "\ufeffkind,prompt,group,seed,object,style,label\n"
        'rain,"a dog, ""wet""",forget,7,dog,,\n,a cat in ink,retain,,cat,ink,\n,猫,held_out,,,,cat\n'
    )
    assert read_questions(path, encoder) == QUESTIONS


GOOD = '{"prompt": "a dog", "group": "forget", "object": "dog"}'
LONG = "dog " * 80


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "expected JSON"),
        ("[1]", "expected a text or an object"),
        ('"a dog"', "expected an object"),
        ('{"group": "forget", "object": "dog"}', "'prompt'"),
        ('{"prompt": "a dog", "object": "dog"}', "'group'"),
        ('{"prompt": "a dog", "group": "erase", "object": "dog"}', "forget, held_out, retain"),
        ('{"prompt": "a dog", "group": "forget"}', "object, style, label"),
        ('{"prompt": "a dog", "group": "forget", "object": ""}', "object, style, label"),
        ('{"prompt": "a dog", "group": "forget", "object": "dog", "seed": -1}', "seed"),
        ('{"prompt": "a dog", "group": "forget", "object": "dog", "seed": 1.5}', "an integer"),
        ('{"prompt": "a dog", "group": "forget", "object": "dog", "kind": "A B"}', "kind"),
        ('{"prompt": "a dog", "group": "forget", "object": "dog", "more": 1}', "'more'"),
        ('{"prompt": "a dog", "prompt": "a cat", "group": "forget", "object": "dog"}', "twice"),
        (json.dumps({"prompt": LONG, "group": "forget", "object": "dog"}), "has 82 tokens: expected at most 77"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, encoder: TextEncoder, row: str, said: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f"{GOOD}\n\n{row}\n{GOOD}\n")
    with pytest.raises(InputError) as refusal:
        read_questions(path, encoder)
    assert "p.jsonl, line 3" in refusal.value.message
    assert said in refusal.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prompt,group,colour\na dog,forget,red\n", "p.csv, line 1 is no header of prompts"),
        ("prompt,group,object\na dog,forget\n", "p.csv, line 2 has"),
        ("prompt,group,object\na dog,forget,dog,cat\n", "p.csv, line 2 has"),
        ("prompt,group,object,seed\na dog,forget,dog,x\n", "p.csv, line 2: seed"),
        ('prompt,group,object\n"a dog,forget,dog\n', "p.csv, line 2 opens a quote that is never closed"),
        ("prompt,group,object\n", "got no row"),
        ("", "got no row"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, encoder: TextEncoder, text: str, said: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InputError) as refusal:
        read_questions(tmp_path / "p.csv", encoder)
    assert said in refusal.value.message


def test_no_file_and_no_text(tmp_path: Path, encoder: TextEncoder) -> None:
    with pytest.raises(NotFoundError):
        read_questions(tmp_path / "none.jsonl", encoder)
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "caf\xe9"}')
    with pytest.raises(InputError, match="UTF-8"):
        read_questions(tmp_path / "latin.jsonl", encoder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "prompt,group,object,prompt\na dog,forget,dog,a cat\n",
            "p.csv, line 1 names the column 'prompt' twice",
        ),
        ("prompt,group,object\n   ,forget,dog\n", "p.csv, line 2: expected a prompt, got blanks"),
        (
            'prompt,group,object\na dog,forget,dog\na cat,retain,cat\n"a pig" far,retain,pig\n',
            "p.csv, line 4 is no CSV",
        ),
    ],
)
def test_tables_that_would_be_misread(tmp_path: Path, encoder: TextEncoder, text: str, said: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InputError) as error:
        read_questions(tmp_path / "p.csv", encoder)
    assert said in error.value.message
