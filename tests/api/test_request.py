"""What to erase, as Python says it: the command's own defaults, and files where the command line reads files."""

from pathlib import Path

import pytest

import rasura

KEEP = rasura.RetainSet("keep.txt", ("bird", "tree"))


def test_texts_are_one_several_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "templates.txt"
    file.write_text("# where objects stand\na {} at night\n{} in the rain\n")
    assert rasura.request("dog", retain=KEEP, templates=file).templates == ("a {} at night", "{} in the rain")
    assert rasura.request("dog", retain=KEEP, templates="a {} at night").templates == ("a {} at night",)
    assert rasura.request("dog", retain=KEEP, held_out=["tree", "car"]).held_out == ("tree", "car")
    assert rasura.request("dog", retain=KEEP, anchor="auto", anchors="animal").anchors == ("animal",)
    with pytest.raises(rasura.errors.NotFoundError):
        rasura.request("dog", retain=KEEP, held_out=tmp_path / "nothing.txt")


def test_concepts_are_texts_or_targets() -> None:
    cat = rasura.Target("cat", "fish")
    both = rasura.request(["dog", cat], anchor="bird", retain=KEEP)
    assert both.targets == (rasura.Target("dog", "bird"), cat)
    one, same = rasura.request(cat, retain=KEEP), rasura.request("cat", anchor="fish", retain=KEEP)
    assert one.targets == rasura.request([cat], retain=KEEP).targets == same.targets == (cat,)


def test_what_a_method_needs_and_refuses_names_arguments() -> None:
    with pytest.raises(rasura.errors.InputError) as unknown:
        rasura.request("dog", method="nothing")
    assert unknown.value.hint == "rasura.methods()"
    with pytest.raises(rasura.errors.ListError, match="what to keep") as needed:
        rasura.request("dog")
    assert needed.value.hint.startswith("retain=")
