"""A manifest's reason why it is separable: strict, and of the touched layers alone."""

import pytest

from rasura.patches._io.json_fields import Fields
from rasura.patches.errors import FormatError
from rasura.patches.format.trace_spec import TracedSpec, TraceSpec
from rasura.patches.types import Digest, ParamName

KEYS = TracedSpec("transformer.blocks.*.attn2.to_k", "projected", "encoder_hidden_states", ("transformer.projection",))
VALUES = TracedSpec(
    "transformer.blocks.*.attn2.to_v", "projected", "encoder_hidden_states", ("transformer.projection",)
)
TRACE = TraceSpec("Transformer", Digest("a" * 64), Digest("b" * 64), (KEYS, VALUES))
TOUCHED = [ParamName(f"transformer.blocks.{i}.attn2.to_k.weight") for i in (0, 11)]


def test_what_is_written_is_read() -> None:
    assert TraceSpec.read(Fields.of(TRACE.to_json(), "manifest.json")) == TRACE


def test_of_a_trace_a_patch_names_what_it_touches() -> None:
    own = TRACE.of(TOUCHED)
    assert own.layers == (KEYS,)
    own.check(TOUCHED, [ParamName("transformer.projection.linear_1.weight")])


@pytest.mark.parametrize(
    ("touched", "through", "said"),
    [
        ([*TOUCHED, ParamName("transformer.proj_out.weight")], [], "a layer for transformer.proj_out.weight"),
        ([ParamName("transformer.blocks.0.attn2.to_k.bias")], [], "a layer for transformer.blocks.0.attn2.to_k.bias"),
        (TOUCHED, [ParamName("transformer.other.weight")], "transformer.other.weight is in none of the modules"),
    ],
)
def test_a_reason_for_something_else_is_none(touched: list[ParamName], through: list[ParamName], said: str) -> None:
    with pytest.raises(FormatError, match=said):
        TRACE.of(TOUCHED).check(touched, through)
    with pytest.raises(FormatError, match=r"expected touched layers alone, got .*attn2\.to_v"):
        TRACE.check(TOUCHED, [])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"reads": "text"}, "expected nothing that the text goes through"),
        ({"through": []}, "expected the modules that the text goes through"),
        ({"reads": "stream"}, "reads"),
        ({"pattern": "transformer/blocks"}, "pattern"),
    ],
)
def test_a_layer_that_contradicts_itself_is_refused(changed: dict[str, object], said: str) -> None:
    document = {**TRACE.to_json(), "layers": [{**KEYS.to_json(), **changed}]}
    with pytest.raises(FormatError, match=said):
        TraceSpec.read(Fields.of(document, "manifest.json"))  # type: ignore[arg-type]
    turned = {**TRACE.to_json(), "layers": [VALUES.to_json(), KEYS.to_json()]}
    with pytest.raises(FormatError, match="expected patterns in order"):
        TraceSpec.read(Fields.of(turned, "manifest.json"))
