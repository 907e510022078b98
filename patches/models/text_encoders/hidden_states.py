"""States inside a CLIP text encoder: what the feed-forward layers read and what leaves each block, by hooks.

The second linear map of a block's feed-forward part, `fc2`, turns a *key* (what passed the activation, 3072 numbers in
Stable Diffusion 1.x) into what the block adds to the stream of states. An edit of it is an edit of a memory: other
values for the same keys. The bias is never touched. Attention is causal, so what stands before the subject of a prompt
has the same keys whatever the subject is, and start-of-text has the same keys in every prompt.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import torch

from rasura.patches.errors import NotFiniteError
from rasura.patches.models.text_encoders.text_encoder import BATCH, TextEncoder
from rasura.patches.types import ParamName

_FC2: Final = re.compile(r"text_encoder\.text_model\.encoder\.layers\.(\d+)\.mlp\.fc2\.weight")


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """What one block does to a batch of prompts, float64 on the CPU.

    Attributes:
        keys: inputs of `fc2`, [n, length, d_ff].
        outputs: what leaves the block, [n, length, d].
    """

    keys: torch.Tensor
    outputs: torch.Tensor


def find_fc2_layers(names: Iterable[ParamName]) -> dict[int, ParamName]:
    """The `fc2` weights of the first text encoder by the number of their block, in rising order."""
    found = {int(match[1]): name for name in names if (match := _FC2.fullmatch(name))}
    return dict(sorted(found.items()))


def copy_encoder(model: Any) -> Any:
    """A copy of a text encoder that may be changed; none of its parameters requires a gradient."""
    return copy.deepcopy(model).requires_grad_(False).eval()  # noqa: FBT003  # torch's own signature


def fc2_of(model: Any, layer: int) -> Any:
    """The second feed-forward map of a block, in either layout that transformers has given the model."""
    return _block(model, layer).mlp.fc2


def states_of(model: Any, ids: torch.Tensor, layers: Sequence[int]) -> dict[int, States]:
    """Keys and outputs of some blocks for token ids [n, length].

    Raises:
        NotFiniteError: NaN or infinity inside the encoder.
    """
    parts: dict[int, list[States]] = {layer: [] for layer in layers}
    for some in _batches(ids):
        for layer, found in _seen(model, some, layers).items():
            parts[layer].append(found)
    return {
        layer: States(torch.cat([s.keys for s in seen]), torch.cat([s.outputs for s in seen]))
        for layer, seen in parts.items()
    }


def stream_states(encoder: TextEncoder, prompts: Iterable[str], layers: Sequence[int]) -> Iterator[dict[int, States]]:
    """`states_of` for as many prompts as there are, in batches, through the pristine encoder."""
    waiting = iter(prompts)
    while part := list(islice(waiting, BATCH)):
        yield _seen(encoder.module, encoder.batch(part), layers)


def embed_tokens(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """What a (changed) encoder gives the UNet for token ids, [n, length, d] float64 on the CPU."""
    with torch.no_grad():
        parts = [model(input_ids=some.to(_device(model))).last_hidden_state for some in _batches(ids)]
    return torch.cat(parts).to("cpu", torch.float64)


def set_weights(model: Any, weights: Mapping[int, torch.Tensor]) -> None:
    """Give blocks of a copy other `fc2` weights [d, d_ff]."""
    with torch.no_grad():
        for layer, weight in weights.items():
            fc2_of(model, layer).weight.copy_(weight)


@contextmanager
def injected(model: Any, layer: int, values: torch.Tensor) -> Iterator[None]:
    """For the length of the block, `fc2` of a layer gives these values [n, length, d], and its bias, for any input."""
    fc2 = fc2_of(model, layer)
    handle = fc2.register_forward_hook(lambda *_: values if fc2.bias is None else values + fc2.bias)
    try:
        yield
    finally:
        handle.remove()


def _batches(ids: torch.Tensor) -> Iterator[torch.Tensor]:
    return (ids[start : start + BATCH] for start in range(0, ids.shape[0], BATCH))


def _seen(model: Any, ids: torch.Tensor, layers: Sequence[int]) -> dict[int, States]:
    keys: dict[int, torch.Tensor] = {}
    outputs: dict[int, torch.Tensor] = {}
    with ExitStack() as hooks, torch.no_grad():
        for layer in layers:
            for handle in (
                fc2_of(model, layer).register_forward_pre_hook(_keeping_input(keys, layer)),
                _block(model, layer).register_forward_hook(_keeping_output(outputs, layer)),
            ):
                hooks.callback(handle.remove)
        model(input_ids=ids.to(_device(model)))
    for tensor in (*keys.values(), *outputs.values()):
        if not bool(torch.isfinite(tensor).all()):
            raise NotFiniteError("the text encoder gives NaN or infinity inside: expected finite states")
    return {layer: States(keys[layer], outputs[layer]) for layer in layers}


def _keeping_input(found: dict[int, torch.Tensor], layer: int) -> Any:
    def hook(_module: object, inputs: Sequence[torch.Tensor]) -> None:
        found[layer] = _double(inputs[0])

    return hook


def _keeping_output(found: dict[int, torch.Tensor], layer: int) -> Any:
    def hook(_module: object, _inputs: object, output: Any) -> None:
        found[layer] = _double(output[0] if isinstance(output, tuple) else output)  # older blocks gave tuples

    return hook


def _double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.float64)


def _block(model: Any, layer: int) -> Any:
    return getattr(model, "text_model", model).encoder.layers[layer]


def _device(model: Any) -> torch.device:
    found: torch.device = next(model.parameters()).device
    return found
