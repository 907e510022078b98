"""The questions that are made: about the right things, in prompts that a person could write."""

import json
import re
from pathlib import Path

import pytest

from rasura.evaluation.images.questions import Subjects, questions, scores
from rasura.evaluation.report.question_kinds import Erasures, find_beside, make_default_questions, read_paraphrases
from rasura.patches.errors import FormatError, InputError

MODEL = Path(__file__).parents[3] / "examples" / "reference_model"
SUBJECTS = Subjects.load(MODEL / "concepts.json")
PARAPHRASES = read_paraphrases(MODEL / "paraphrases.json")


def test_concepts_are_sorted_into_objects_and_styles() -> None:
    assert Erasures.of(SUBJECTS, ["Neon", "dog", "palm  tree"]) == Erasures(("dog", "palm tree"), ("neon",))
    with pytest.raises(InputError, match="unicorn"):
        Erasures.of(SUBJECTS, ["dog", "unicorn"])


def test_direct_questions_are_those_of_the_demo() -> None:
    asked = make_default_questions(SUBJECTS, Erasures(("dog",), ("neon",)), PARAPHRASES)
    assert tuple(q for q in asked if q.kind == "direct") == questions(SUBJECTS, "dog", "neon")


def test_every_question_is_of_a_seed_of_its_own_and_asks_what_its_prompt_says() -> None:
    asked = make_default_questions(SUBJECTS, Erasures(("dog", "lion"), ("neon",)), PARAPHRASES)
    assert len({q.shot for q in asked}) == len(asked)
    for question in asked:
        words = question.shot.prompt
        if question.kind == "paraphrase":
            assert question.wanted["object"] not in words
        else:
            assert all(label in words for label in question.wanted.values()), question
        if question.group != "forget":
            assert not {"dog", "lion", "neon"} & set(question.wanted.values())
            assert not re.search("dog|lion|neon", words)
        assert (question.group == "held_out") == (question.wanted.get("object") in {"mushroom", "rocket", "guitar"})


def test_rounds_multiply() -> None:
    erased = Erasures(("dog",), ())
    one, three = (make_default_questions(SUBJECTS, erased, PARAPHRASES, rounds=r) for r in (1, 3))
    assert len(three) == 3 * len(one)


@pytest.mark.parametrize("erased", [Erasures(("dog",), ()), Erasures((), ("neon",))])
def test_one_erasure_alone(erased: Erasures) -> None:
    asked = make_default_questions(SUBJECTS, erased, PARAPHRASES)
    assert {q.group for q in asked} == {"forget", "retain", "held_out"}
    answers = [q.wanted for q in asked]
    assert all(score.before == score.n == score.both for score in scores(asked, answers, answers))


def test_paraphrases_describe_every_object_in_words_that_the_model_knows() -> None:
    assert list(PARAPHRASES) == list(SUBJECTS.objects)
    vocabulary = json.loads((MODEL / "pipeline" / "tokenizer" / "vocab.json").read_text())
    for thing, prompts in PARAPHRASES.items():
        assert len(prompts) == len(set(prompts)) >= 4
        for prompt in prompts:
            assert not re.search(rf"\b({'|'.join(thing.split())})", prompt)
            assert not set(prompt.split()) & set(SUBJECTS.objects), prompt
            assert all(f"{word}</w>" in vocabulary for word in prompt.split()), prompt


def test_no_paraphrases_and_broken_ones(tmp_path: Path) -> None:
    assert read_paraphrases(None) == {}
    for text in ("[]", "{", '{"dog": [1]}', '{"dog": 1}'):
        (tmp_path / "p.json").write_text(text)
        with pytest.raises(FormatError):
            read_paraphrases(tmp_path / "p.json")


def test_files_are_found_in_a_folder_or_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "model").mkdir(parents=True)
    assert find_beside("x.json", [tmp_path / "a" / "model"]) is None
    (tmp_path / "a" / "x.json").touch()
    assert find_beside("x.json", [tmp_path / "a" / "model"]) == tmp_path / "a" / "x.json"
