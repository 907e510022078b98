# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Command lines that say too little or too much: what is wrong, exit code 2, and nothing done."""

import pytest
from support.commandline import rasura
from support.registries.workshop import Workshop, workshop

MODEL = ("--model", "the model")
ERASE = ("erase", "--base", "tiny", "--concept", "dog")
LINES = {
    "apply to what": (("patch", "apply", "DOG"), "Missing option '--model'"),
    "a plan and a patch": (("patch", "apply", "plan.json", "DOG"), "a plan stands alone"),
    "a plan and a strength": (("patch", "apply", "plan.json", "--strength", "2"), "a plan stands alone"),
    "revert what": (("patch", "revert", *MODEL), "name the patches to revert, or --all"),
    "revert all and one": (("patch", "revert", "DOG", "--all", *MODEL), "name the patches to revert, or --all"),
    "force of one": (("patch", "revert", "DOG", "--force", *MODEL), "--force goes with --all"),
    "check what": (("patch", "check"), "name the patches to check, or --stack NAME"),
    "check one twice": (("patch", "check", "DOG", "DOG"), "a patch is named twice"),
    "revert another": (("patch", "check", "DOG", "--revert", "RIVAL"), "is not among the patches to check"),
    "report of what": (("report", "-o", "r.html"), "expected one of --case, --stack and --model"),
    "report of two": (("report", "--case", "1", "--stack", "s", "-o", "r.html"), "expected one of --case, --stack"),
    "report as text": (("report", "--stack", "s", "-o", "r.txt"), "ends in .html"),
    "pictures nowhere": (("evaluate", "--base", "tiny", "--keep-pictures"), "--keep-pictures needs --out DIR"),
    "a limit of nothing": (("evaluate", "--base", "tiny", "--min", "forget"), "--min expects NAME=VALUE"),
    "take down where": (("takedown", "--concept", "dog", "--yes"), "expected one of --model and --stack"),
    "take down what": (("takedown", *MODEL, "--yes"), "expected one of --concept and --file"),
    "nobody to ask": (("takedown", "--concept", "dog", *MODEL), "nobody can be asked here"),
    "anchors twice": (
        ("takedown", *MODEL, "--file", "r.csv", "--anchor", "cat", "--yes"),
        "anchors, names, templates stand in the file",
    ),
    "more anchors": ((*ERASE, "--anchor", "a", "--anchor", "b"), "1 concepts and 2 anchors"),
    "a choice of nothing": ((*ERASE, "--set", "rank"), "--set rank: expected NAME=VALUE"),
    "nothing kept": (ERASE, "method null-space needs to know what to keep: --retain FILE"),
}


@pytest.mark.parametrize("what", LINES)
def test_it_is_said_and_nothing_is_done(what: str, workshop: Workshop) -> None:
    words, said = LINES[what]
    names = {"DOG": workshop.dog, "RIVAL": workshop.rival}
    typed = [names.get(word, word) for word in words]
    with workshop.unchanged():
        run = rasura(*typed, "--json", cwd=workshop.folder)
    assert (run.code, run.envelope["error"]["code"]) == (2, "usage")
    assert said in run.envelope["error"]["message"]
    assert not (workshop.folder / "r.html").exists()
