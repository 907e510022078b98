"""The model card: right for the Hub, and safe whatever a concept is called."""

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from rasura.patches.errors import FormatError, InputError
from rasura.patches.models import families
from rasura.patches.types import Digest, PatchId
from rasura.registry.hub.card.facts import BaseFacts, CardFacts, PatchFacts, find_superseded
from rasura.registry.hub.card.families import FAMILIES
from rasura.registry.hub.card.front_matter import rows
from rasura.registry.hub.card.licences import Licence, choose_licence, parse_licence
from rasura.registry.hub.card.page import BEGIN, END, render
from rasura.registry.hub.card.text import escape_inline, plain

REPO = "acme/delta"
SEEN = Path(__file__).parents[3] / "docs" / "results" / "families.json"
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


BASE = BaseFacts(Digest("b" * 64), "Stable Diffusion 1.4", "SD 1.x", "CompVis/stable-diffusion-v1-4")
LICENCE = Licence({"license": "creativeml-openrail-m"})


def name_of(number: int) -> PatchId:
    return PatchId(f"{number:012x}".ljust(64, "0"))


def facts(*concepts: str, number: int = 1, anchor: str = "", method: str = "nullspace") -> CardFacts:
    patch = PatchFacts(PatchId(f"{number:064x}"), concepts, method, BASE, anchor)
    return CardFacts("0.1.0", (patch,))


def row(number: int, base: BaseFacts = BASE, *, supersedes: tuple[int, ...] = (), **more: Any) -> PatchFacts:
    folder = f"patches/{name_of(number)}"
    old = tuple(map(name_of, supersedes))
    return PatchFacts(name_of(number), (f"concept {number}",), "nullspace", base, path=folder, supersedes=old, **more)


def loaded(text: str) -> list[str]:
    """The abbreviations of the patches that the lines of the card load with diffusers."""
    return [line.split('adapter_name="')[1][:12] for line in text.splitlines() if "load_lora_weights(" in line]


def front(text: str) -> dict[str, Any]:
    return dict(ModelCard(text).data.to_dict())  # type: ignore[no-untyped-call]


def tokens(text: str) -> list[str]:
    """The structure of a rendered card, without its words."""
    found = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table").parse(ModelCard(text).text)
    return [inner.type for token in found for inner in (token, *(token.children or ()))]


def test_the_front_matter_is_what_the_hub_wants() -> None:
    card = front(render(facts("Van Gogh"), REPO, "", LICENCE))
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
    assert "](manifest.json) | Van Gogh | a painting | nullspace | current |" in text
    assert "suppression measure" in text
    assert "complian" not in text.lower()
    assert "guarantee" not in text.lower()


def test_a_patch_in_a_folder_is_loaded_from_there() -> None:
    path = f"patches/{1:064x}"
    patch = PatchFacts(PatchId(f"{1:064x}"), ("x",), "nullspace", BASE, path=path)
    assert f'subfolder="{path}"' in render(CardFacts("0.1.0", (patch,)), REPO)


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
    patch = PatchFacts(PatchId("a" * 64), (concept,), "ridge", BaseFacts(BASE.digest, base, "SD 1.x"))
    text = render(CardFacts("0.1.0", (patch,)), REPO)
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
    [paragraph, *_] = [t for t in MarkdownIt().parse(f"x{escape_inline(text)}x") if t.type == "inline"]
    assert [child.type for child in paragraph.children or ()] == ["text"]
    assert paragraph.children
    assert paragraph.children[0].content == f"x{plain(text)}x"


def test_ordinary_names_stay_readable_in_the_source() -> None:
    assert escape_inline("Jean-Michel Basquiat, painter") == "Jean-Michel Basquiat, painter"
    assert escape_inline("草間彌生") == "草間彌生"
    assert escape_inline("a|b") == "a&#124;b"
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
    assert rows(text) == (PatchFacts(PatchId(f"{1:064x}"), ("Van Gogh",), "nullspace", BASE, "art", ""),)
    full = row(2, supersedes=(1,), licence="mit", successor=name_of(9), comfyui="comfyui/x-000000000002.safetensors")
    assert rows(render(CardFacts("0.1.0", (full,)), REPO)) == (full,)
    bad = "---\nrasura:\n  patches:\n  - 1\n  - {id: x, path: ../.., concepts: [a], method: b}\n  - {id: 7}\n---\n"
    assert rows(bad) == ()
    assert rows("---\nrasura: 3\n---\n") == rows("# no front matter") == rows("") == ()


@pytest.mark.parametrize("text", ["---\na: [\n---\n", "---\n- a\n---\n", "---\n!!python/name:os.system\n---\n"])
def test_a_front_matter_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="front matter"):
        render(facts("x"), REPO, text)


@pytest.mark.parametrize("base", ["a/b/c", "a b", "x\ny", "../x", '"; import os'])
def test_names_that_go_into_code_are_checked(base: str) -> None:
    with pytest.raises(InputError):
        BaseFacts(BASE.digest, "base", model=base)


# --- what a stranger is told to load --------------------------------------------------------------------------------


def test_a_superseded_patch_is_marked_and_not_loaded() -> None:
    text = render(CardFacts("0.1.0", (row(1), row(2, supersedes=(1,)), row(3))), REPO)
    assert loaded(text) == [name_of(2)[:12], name_of(3)[:12]]
    assert (
        f"| [`{name_of(1)[:12]}`](patches/{name_of(1)}/manifest.json) | concept 1 |  | nullspace | superseded by `{name_of(2)[:12]}` |"
        in text
    )
    assert text.count("| current |") == 2
    assert f'pipe.set_adapters(["{name_of(2)[:12]}", "{name_of(3)[:12]}"])' in text


def test_a_chain_names_the_current_one_and_a_circle_nothing() -> None:
    chain = (row(1), row(2, supersedes=(1,)), row(3, supersedes=(2,)))
    assert find_superseded(chain) == {name_of(1): name_of(3), name_of(2): name_of(3)}
    assert find_superseded((row(1, supersedes=(2,)), row(2, supersedes=(1,)))) == {}
    assert find_superseded((row(1, supersedes=(1,)),)) == {}


def test_a_successor_that_only_the_registry_knows_counts() -> None:
    text = render(CardFacts("0.1.0", (row(1, successor=name_of(9)), row(2))), REPO)
    assert loaded(text) == [name_of(2)[:12]]
    assert f"superseded by `{name_of(9)[:12]}`" in text


def test_every_current_patch_is_loaded_however_many() -> None:
    many = tuple(row(number) for number in range(1, 30))
    text = render(CardFacts("0.1.0", many), REPO)
    assert loaded(text) == [patch.patch_id[:12] for patch in many]
    named = next(line for line in text.splitlines() if line.startswith("pipe.set_adapters"))
    assert named.split('"')[1::2] == loaded(text)


@pytest.mark.parametrize("family", [*FAMILIES, ""])
def test_a_family_has_its_own_tag_and_its_own_way(family: str) -> None:
    base = BaseFacts(BASE.digest, "the base", family, "acme/base")
    file = "comfyui/x-000000000001.safetensors" if base.loads.kohya else ""
    text = render(CardFacts("0.1.0", (row(1, base, comfyui=file),)), REPO)
    tags = front(text)["tags"]
    assert [tag for tag in tags if tag in {facts.tag for facts in FAMILIES.values()}] == [
        tag for tag in [base.loads.tag] if tag
    ]
    assert ("load_lora_weights" in text) is base.loads.diffusers
    assert ("rasura.attach(pipe).apply" in text) is not base.loads.diffusers
    assert ("comfyui/x-000000000001.safetensors" in text) is base.loads.kohya
    assert "license" not in front(text)


def test_pixart_has_no_loader_in_diffusers_and_the_card_claims_none() -> None:
    for name, loads in {"PixArtAlphaPipeline": False, "FluxPipeline": True, "StableDiffusion3Pipeline": True}.items():
        assert hasattr(getattr(diffusers, name), "load_lora_weights") is loads
    base = BaseFacts(BASE.digest, "PixArt alpha", "PixArt", "PixArt-alpha/PixArt-XL-2-512x512")
    text = render(CardFacts("0.1.0", (row(1, base),)), REPO)
    assert "load_lora_weights" not in text
    assert "diffusers has no LoRA loader for pipelines of the PixArt family" in text
    assert '.from_pretrained("PixArt-alpha/PixArt-XL-2-512x512")' in text


def test_every_family_has_what_a_run_saw_its_pipeline_load() -> None:
    """A family without a row would have its card claim that diffusers has no loader for it."""
    assert FAMILIES.keys() == {family.name for family in families.FAMILIES}
    seen = {one["family"]: one["lora"] for one in json.loads(SEEN.read_text())}
    assert {name: FAMILIES[name].diffusers for name in seen} == {name: lora == "equal" for name, lora in seen.items()}


def test_of_wan_2_2_the_card_says_that_half_would_be_loaded() -> None:
    base = BaseFacts(BASE.digest, "Wan 2.2 14B", "Wan 2.2", "acme/wan")
    text = render(CardFacts("0.1.0", (row(1, base),)), REPO)
    assert (
        "diffusers loads one denoiser alone of LoRA files into pipelines of the Wan 2&#46;2 family, so rasura" in text
    )


def test_patches_of_two_bases_are_never_loaded_into_one_pipeline() -> None:
    other = BaseFacts(Digest("c" * 64), "SDXL", "SDXL", "acme/xl")
    text = render(CardFacts("0.1.0", (row(1), row(2, other))), REPO)
    assert front(text)["base_model"] == [BASE.model, other.model]
    assert text.count("DiffusionPipeline.from_pretrained(") == 2
    assert "set_adapters" not in text
    assert {"stable-diffusion", "stable-diffusion-xl"} <= set(front(text)["tags"])


def test_the_tag_of_a_family_that_is_no_longer_there_goes() -> None:
    first = render(CardFacts("0.1.0", (row(1),)), REPO)
    flux = BaseFacts(Digest("c" * 64), "FLUX.1", "FLUX")
    tags = front(render(CardFacts("0.1.0", (row(2, flux),)), REPO, first))["tags"]
    assert "flux" in tags
    assert "stable-diffusion" not in tags


def test_the_card_says_which_file_is_for_whom_and_how_to_check_it_without_us() -> None:
    text = render(CardFacts("0.1.0", (row(1, comfyui="comfyui/x-000000000001.safetensors"),)), REPO)
    assert "ComfyUI finds no layer of a UNet in `pytorch_lora_weights.safetensors`" in text
    assert "* `comfyui/x-000000000001.safetensors`" in text
    assert "--ignore_unsigned_files" in text


# --- licences -------------------------------------------------------------------------------------------------------


def test_names_of_licences_are_those_of_the_hub_or_other() -> None:
    assert parse_licence("CC0-1.0") == {"license": "cc0-1.0"}
    assert parse_licence("OpenRAIL++") == {"license": "openrail++"}
    assert parse_licence("FLUX.1 dev, non-commercial") == {
        "license": "other",
        "license_name": "flux.1-dev-non-commercial",
    }
    for bad in ("", " ", "x" * 101, "a\nb"):
        with pytest.raises(InputError):
            parse_licence(bad)


def test_who_says_the_licence_in_which_order() -> None:
    mit, apache, base = {"license": "mit"}, {"license": "apache-2.0"}, {"license": "openrail++"}
    assert choose_licence("Apache-2.0", ["MIT", ""], mit, base).front == apache
    assert "signed as MIT" in choose_licence("Apache-2.0", ["MIT", ""], mit, base).notes[0]
    assert choose_licence("mit", ["MIT"], apache, base) == Licence(mit)
    assert choose_licence(None, ["MIT", ""], {}, base) == Licence(mit)
    assert "licence was apache-2.0" in choose_licence(None, ["MIT"], apache, base).notes[0]
    assert choose_licence(None, ["", ""], apache, base) == Licence(apache)
    assert choose_licence(None, [""], {}, base) == Licence(base)
    several = choose_licence(None, ["MIT", "Apache-2.0"], {}, base)
    assert several.front["license"] == "other"
    assert "Apache-2.0 and MIT" in several.notes[0]
    assert choose_licence(None, [""], {}, {}).front == {}
    assert "--license" in choose_licence(None, [""], {}, {}).notes[0]
