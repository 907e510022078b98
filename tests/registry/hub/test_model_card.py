"""The model card: right for the Hub, and safe whatever a concept is called."""

from typing import Any

import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from rasura.patches.errors import FormatError, InputError
from rasura.patches.types import PatchId
from rasura.registry.hub.model_card import BEGIN, END, CardFacts, PatchFacts, inline, plain, render, rows

REPO = "acme/delta"
NASTY = [
    "---\nlicense: mit\n---",
    "a\n---\nb: c",
    '"; rm -rf / #',
    "{{ config }} {% raw %}",
    "| x | y |\n|---|---|",
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](http://evil.example/x.png)",
    "https://evil.example www.evil.example",
    "`code` ```\n# Heading",
    "&lt;b&gt; &#60;b&#62;",
    "\u202egnp.exe\u2066",
    "\x00\x1b[31mred\x07",
    "\u2028line\u2029",
    BEGIN,
    END,
    "*bold* _it_ ~~no~~ \\",
    "!!python/object:os.system",
    "- a: [b",
    "&anchor *alias",
    "x" * 5000,
    "",
]


def facts(*concepts: str, number: int = 1, anchor: str = "", method: str = "nullspace") -> CardFacts:
    patch = PatchFacts(PatchId(f"{number:064x}"), concepts, method, anchor)
    return CardFacts("Stable Diffusion 1.4", "0.1.0", (patch,), base_model="CompVis/stable-diffusion-v1-4")


def front(text: str) -> dict[str, Any]:
    return dict(ModelCard(text).data.to_dict())  # type: ignore[no-untyped-call]


def tokens(text: str) -> list[str]:
    """The structure of a rendered card, without its words."""
    found = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table").parse(ModelCard(text).text)
    return [inner.type for token in found for inner in (token, *(token.children or ()))]


def test_the_front_matter_is_what_the_hub_wants() -> None:
    card = front(render(facts("Van Gogh"), REPO))
    assert card["base_model"] == "CompVis/stable-diffusion-v1-4"
    assert card["base_model_relation"] == "adapter"
    assert (card["library_name"], card["pipeline_tag"]) == ("diffusers", "text-to-image")
    assert card["license"] == "creativeml-openrail-m"
    expected = ["lora", "diffusers", "text-to-image", "stable-diffusion", "concept-erasure", "safety", "rasura"]
    assert card["tags"] == expected
    assert "instance_prompt" not in card


def test_the_text_tells_how_to_use_it_and_promises_no_compliance() -> None:
    text = render(facts("Van Gogh", anchor="a painting"), REPO)
    assert f'pipe.load_lora_weights("{REPO}", weight_name="pytorch_lora_weights.safetensors", adapter_name=' in text
    assert f"rasura pull {REPO}" in text
    assert "| Van Gogh | a painting | nullspace | the root |" in text
    assert "suppression measure" in text
    assert "complian" not in text.lower()
    assert "guarantee" not in text.lower()


def test_a_patch_in_a_folder_is_loaded_from_there() -> None:
    path = f"patches/{1:064x}"
    patch = PatchFacts(PatchId(f"{1:064x}"), ("x",), "nullspace", path=path)
    assert f'subfolder="{path}"' in render(CardFacts("base", "0.1.0", (patch,)), REPO)


@pytest.mark.parametrize("name", NASTY)
def test_a_concept_cannot_leave_its_cell(name: str) -> None:
    quiet = render(facts("x", anchor="y", method="z"), REPO)
    loud = render(facts(name, anchor=name, method=name), REPO)
    assert [kind for kind in tokens(loud) if kind != "text"] == [kind for kind in tokens(quiet) if kind != "text"]
    assert front(loud)["rasura"]["patches"][0]["concepts"] == [plain(name)]
    body = ModelCard(loud).text
    assert (body.count(BEGIN), body.count(END)) == (1, 1)
    assert rows(render(facts("other", number=1), REPO, loud))[0].concepts == ("other",)


@given(st.text(max_size=300), st.text(max_size=50))
def test_any_text_survives_the_card_as_plain_text(concept: str, base: str) -> None:
    patch = PatchFacts(PatchId("a" * 64), (concept,), "ridge", path="")
    text = render(CardFacts(base, "0.1.0", (patch,)), REPO)
    [row] = rows(text)
    assert row.concepts == (plain(concept),)
    text.encode()  # no lone surrogate is left
    assert not [kind for kind in tokens(text) if kind in {"image", "html_inline"}]
    assert tokens(text).count("html_block") == 2


@given(st.text())
def test_plain_text_is_one_visible_line(text: str) -> None:
    shown = plain(text)
    assert shown.isprintable() or not shown
    assert len(shown) <= 200
    assert plain(shown) == shown


@given(st.text(max_size=100))
def test_inline_text_renders_as_itself(text: str) -> None:
    [paragraph, *_] = [t for t in MarkdownIt().parse(f"x{inline(text)}x") if t.type == "inline"]
    assert [child.type for child in paragraph.children or ()] == ["text"]
    assert paragraph.children
    assert paragraph.children[0].content == f"x{plain(text)}x"


def test_ordinary_names_stay_readable_in_the_source() -> None:
    assert inline("Jean-Michel Basquiat, painter") == "Jean-Michel Basquiat, painter"
    assert inline("草間彌生") == "草間彌生"
    assert inline("a|b") == "a&#124;b"
    assert plain("a\u202eb") == "a[U+202E]b"


def test_what_a_person_wrote_is_kept() -> None:
    mine = "---\nlicense: openrail++\nlanguage: en\ntags: [mine, lora]\ncustom: {a: 1}\n---\n# My patches\n\nHello.\n"
    once = render(facts("x"), REPO, mine)
    card = front(once)
    assert card["license"] == "openrail++"
    assert card["custom"] == {"a": 1}
    assert card["tags"][:2] == ["mine", "lora"]
    assert "Hello." in once
    assert render(facts("x"), REPO, once) == once
    later = render(facts("y"), REPO, once.replace("Hello.", "Hello again."))
    assert "Hello again." in later
    assert later.count(BEGIN) == 1


def test_rows_are_read_back_and_odd_ones_left_out() -> None:
    text = render(facts("Van Gogh", anchor="art"), REPO)
    assert rows(text) == (PatchFacts(PatchId(f"{1:064x}"), ("Van Gogh",), "nullspace", "art", ""),)
    bad = "---\nrasura:\n  patches:\n  - 1\n  - {id: x, path: ../.., concepts: [a], method: b}\n  - {id: 7}\n---\n"
    assert rows(bad) == ()
    assert rows("---\nrasura: 3\n---\n") == rows("# no front matter") == rows("") == ()


@pytest.mark.parametrize("text", ["---\na: [\n---\n", "---\n- a\n---\n", "---\n!!python/name:os.system\n---\n"])
def test_a_front_matter_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="front matter"):
        render(facts("x"), REPO, text)


@pytest.mark.parametrize("base", ["", "a/b/c", "a b", "x\ny", "../x", '"; import os'])
def test_names_that_go_into_code_are_checked(base: str) -> None:
    with pytest.raises(InputError):
        CardFacts("base", "0.1.0", (), base_model=base)
    with pytest.raises(InputError):
        CardFacts("base", "0.1.0", (), license=base)
