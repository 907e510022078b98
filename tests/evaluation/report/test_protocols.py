"""Benchmarks' lists of prompts: what is read of them, and that a bad row is named by its line."""

from pathlib import Path

import pytest

from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.questions import Question
from rasura.evaluation.report.protocols import Format, Protocol, read_protocol
from rasura.patches.errors import InputError, NotFoundError

I2P = (
    "prompt,categories,hard,inappropriate_percentage,nudity_percentage,q16_percentage,sd_safety_percentage,"
    "prompt_toxicity,lexica_url,sd_seed,sd_guidance_scale,sd_image_width,sd_image_height,sd_model\n"
    '"a picture, of ""rain""",self-harm,0,60.0,0.0,60.0,0.0,0.01,https://lexica.art/x,2571414010,7,512,512,SD 1.5\n'
    'a kettle,"hate, illegal activity",1,1.0,0.0,1.0,0.0,0.02,https://lexica.art/y,12.0,8.5,512,768,SD 1.5\n'
)


def written(folder: Path, text: str) -> Path:
    path = folder / "list.csv"
    path.write_text(text)
    return path


def test_i2p(tmp_path: Path) -> None:
    path = written(tmp_path, I2P)
    assert read_protocol(path, Protocol("i2p", "nsfw")) == (
        Question("forget", Shot('a picture, of "rain"', 2571414010), {"label": "nsfw"}, "self-harm"),
        Question("forget", Shot("a kettle", 12), {"label": "nsfw"}, "several"),
    )


@pytest.mark.parametrize("column", ["evaluation_seed", "seed", "sd_seed"])
def test_any_table_with_prompts(tmp_path: Path, column: str) -> None:
    path = written(tmp_path, f"case_number,prompt,{column}\n0,a kettle,7\n\n1,{'word ' * 200},8\n")
    found = read_protocol(path, Protocol("csv", "object=kettle", "retain"))
    assert [q.shot.seed for q in found] == [7, 8]
    assert found[0] == Question("retain", Shot("a kettle", 7), {"object": "kettle"}, "direct")
    assert len(found[1].shot.prompt) == 999  # drawn as far as the encoder reads


def test_a_list_of_another_format_says_the_same(tmp_path: Path) -> None:
    expected = (Question("forget", Shot("a kettle", 7), {"label": "nsfw"}, "direct"),)
    for name, text in (
        ("list.csv", "prompt;seed\na kettle;7\n"),
        ("list.tsv", "prompt\tseed\na kettle\t7\n"),
        ("list.jsonl", '{"prompt": "a kettle", "seed": 7}\n'),
        ("list.json", '[{"prompt": "a kettle", "seed": 7}]'),
    ):
        (tmp_path / name).write_text(text)
        assert read_protocol(tmp_path / name, Protocol("csv", "nsfw")) == expected


def test_without_seeds_the_rows_are_counted(tmp_path: Path) -> None:
    found = read_protocol(written(tmp_path, "\ufeffprompt\na\nb\n"), Protocol("csv", "a=b"))
    assert [(q.shot.seed, q.wanted) for q in found] == [(0, {"label": "a=b"}), (1, {"label": "a=b"})]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("csv", "", "list.csv, line 1: expected the column prompt, got none"),
        ("csv", "prompt\n", "got no row"),
        ("csv", "text,seed\na,1\n", "list.csv, line 1: expected the column prompt, got 'text', 'seed'"),
        ("csv", "version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("i2p", "prompt,sd_seed\na,1\n", "list.csv, line 1: expected the column categories"),
        ("csv", "prompt,prompt\na,b\n", "list.csv, line 1 names the column 'prompt' twice"),
        ("csv", "prompt,seed,sd_seed\na,1,2\n", "list.csv, line 1: expected one column of seeds, got seed and sd_seed"),
        ("csv", "prompt,seed\na,1\nb, c,2\n", "list.csv, line 3 has 3 cells"),
        ("csv", "prompt,seed\na,x\n", "list.csv, line 2: seed: expected an integer"),
        ("csv", "prompt,seed\na,-1\n", "list.csv, line 2: seed"),
        ("csv", "prompt,seed\na,9999999999999999\n", "list.csv, line 2: seed"),
        ("csv", "prompt,seed\na,1\n  ,2\n", "list.csv, line 3: expected a prompt, got blanks"),
        ("csv", 'prompt\na\nb\n"c" d\n', "list.csv, line 4 is no CSV"),
        ("csv", 'prompt\na\n"open\n', "list.csv, line 3 opens a quote that is never closed"),
    ],
)
def test_a_bad_list_is_refused_with_its_line(tmp_path: Path, name: Format, text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        read_protocol(written(tmp_path, text), Protocol(name, "nsfw"))
    assert said in error.value.message


def test_what_a_person_must_say(tmp_path: Path) -> None:
    path = written(tmp_path, "prompt\na\n")
    with pytest.raises(InputError, match="got nothing"):
        read_protocol(path, Protocol("csv", "object="))
    with pytest.raises(InputError, match="got 'all'"):
        read_protocol(path, Protocol("csv", "nsfw", "all"))
    with pytest.raises(NotFoundError):
        read_protocol(tmp_path / "none.csv", Protocol("csv", "nsfw"))
