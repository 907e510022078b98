"""Stand-ins for UNets: diffusers models of nothing but cross-attention keys and values, named and shaped as there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from torch import nn

from rasura.patches.algebra.increment import Increment
from rasura.patches.types import ParamName

RANK: Final = 4
TOKENS: Final = 77

SD15: Final = (
    *(("down_blocks", b, a, 1, (320, 640, 1280)[b]) for b in range(3) for a in range(2)),
    ("mid_block", None, 0, 1, 1280),
    *(("up_blocks", b, a, 1, (1280, 1280, 640, 320)[b]) for b in (1, 2, 3) for a in range(3)),
)
SDXL: Final = (
    *(("down_blocks", 1, a, 2, 640) for a in range(2)),
    *(("down_blocks", 2, a, 10, 1280) for a in range(2)),
    ("mid_block", None, 0, 10, 1280),
    *(("up_blocks", 0, a, 10, 1280) for a in range(3)),
    *(("up_blocks", 1, a, 2, 640) for a in range(3)),
)
MODELS: Final = {"SD 1.5": (SD15, 768), "SDXL": (SDXL, 2048)}

Patch = dict[ParamName, Increment]


def shapes(name: str) -> Iterator[tuple[str, int, int]]:
    """Module, d_out and d_in of every key and value projection."""
    places, width = MODELS[name]
    for block, index, attention, count, out in places:
        parts = [block, *([] if index is None else [str(index)]), "attentions", str(attention)]
        for at in range(count):
            for role in ("to_k", "to_v"):
                yield ".".join([*parts, "transformer_blocks", str(at), "attn2", role]), out, width


def model(name: str, dtype: torch.dtype) -> Any:
    """A diffusers model with these layers and weights like trained ones: standard deviation 0.03."""
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.loaders.peft import PeftAdapterMixin
    from diffusers.models.modeling_utils import ModelMixin

    class CrossAttention(ModelMixin, ConfigMixin, PeftAdapterMixin):  # type: ignore[misc]
        @register_to_config  # type: ignore[untyped-decorator]
        def __init__(self) -> None:
            super().__init__()
            for path, out, width in shapes(name):
                _place(self, path, nn.Linear(width, out, bias=False))

        def forward(self, text: torch.Tensor) -> list[torch.Tensor]:
            """What every layer makes of the text [n, 77, width]."""
            return [self.get_submodule(path)(text) for path, _, _ in shapes(name)]

    generator = torch.Generator().manual_seed(0)
    made = CrossAttention().to(dtype).requires_grad_(requires_grad=False)
    for parameter in made.parameters():
        parameter.copy_((torch.randn(parameter.shape, generator=generator) * 0.03).to(dtype))
    return made


def patch(name: str, seed: int) -> Patch:
    """One detector for all layers, responses that make |ΔW| a twentieth of |W|."""
    generator = torch.Generator().manual_seed(1000 + seed)
    width = MODELS[name][1]
    A = torch.randn(RANK, width, generator=generator)
    A /= A.norm(dim=1, keepdim=True)
    scale = 0.05 * 0.03 * (width / RANK) ** 0.5
    return {
        ParamName(f"unet.{path}.weight"): Increment.quantised(A, torch.randn(out, RANK, generator=generator) * scale)
        for path, out, _ in shapes(name)
    }


def state_dict(patch: Patch) -> dict[str, torch.Tensor]:
    """The patch as `load_lora_adapter(…, prefix=None)` reads it."""
    found: dict[str, torch.Tensor] = {}
    for name, increment in patch.items():
        module = name.removeprefix("unet.").removesuffix(".weight")
        found |= {f"{module}.lora_A.weight": increment.A, f"{module}.lora_B.weight": increment.B}
    return found


def load(model: Any, patches: Sequence[Patch]) -> list[str]:
    """Load them as diffusers does, one adapter each; returns their names."""
    names = [f"p{number}" for number in range(len(patches))]
    for name, each in zip(names, patches, strict=True):
        model.load_lora_adapter(state_dict(each), adapter_name=name, prefix=None)
    return names


def load_quickly(model: Any, patches: Sequence[Patch]) -> list[str]:
    """The same adapters, all but the first put into PEFT's layers directly: diffusers would take half an hour."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    names = load(model, patches[:1])
    config = model.peft_config[names[0]]
    layers = {n: m for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)}
    for number, each in enumerate(patches[1:], 1):
        names.append(f"p{number}")
        for module, layer in layers.items():
            increment = each[ParamName(f"unet.{module}.weight")]
            layer.update_layer(names[-1], r=RANK, lora_alpha=config.lora_alpha, config=config)
            for factors, value in ((layer.lora_A, increment.A), (layer.lora_B, increment.B)):
                weight = factors[names[-1]].weight
                weight.data = value.to(weight.dtype)
    return names


def weights(model: Any) -> list[torch.Tensor]:
    """The weights themselves, whatever is wrapped around them."""
    return [p for n, p in model.named_parameters() if "lora_" not in n]


def equal_share(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> float:
    """Share of 16-bit entries with equal bits."""
    same = sum(int((a.view(torch.int16) == b.view(torch.int16)).sum()) for a, b in zip(left, right, strict=True))
    return same / sum(a.numel() for a in left)


def _place(root: nn.Module, path: str, layer: nn.Module) -> None:
    *outer, last = path.split(".")
    for part in outer:
        if part not in dict(root.named_children()):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, layer)
