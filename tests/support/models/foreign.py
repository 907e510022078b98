"""Erasures as other programs save them, written from their published formulas and formats."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

__all__ = ["last_token", "lora_of", "save_kohya", "train_lora", "uce_weights"]


def last_token(tokenizer: Any, encoder: Any, prompt: str) -> torch.Tensor:
    """The state [d] of the last token before the end of text, as UCE's and SPEED's code takes it."""
    ids = tokenizer(prompt, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        states = encoder(ids.input_ids)[0][0]
    found: torch.Tensor = states[int(ids.attention_mask.sum()) - 2]
    return found


def uce_weights(
    unet: Mapping[str, torch.Tensor],
    embed: Callable[[str], torch.Tensor],
    edits: Sequence[tuple[str, str]],
    retain: Sequence[str],
    *,
    ridge: float = 0.5,
) -> dict[str, torch.Tensor]:
    """UCE's closed form (arXiv 2308.14761, eq. 7) in float32, in the names of the UNet's state dict.

    W = (Σ W c* cᵀ + Σ W c₀ c₀ᵀ + λW)(Σ c cᵀ + Σ c₀ c₀ᵀ + λI)⁻¹
    """
    found = {}
    for name, stored in unet.items():
        if not name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            continue
        W = stored.to(torch.float32)
        one, two = ridge * W, ridge * torch.eye(W.shape[1])
        for concept, anchor in edits:
            c, goal = embed(concept), W @ embed(anchor)
            one, two = one + torch.outer(goal, c), two + torch.outer(c, c)
        for kept in retain:
            c = embed(kept)
            one, two = one + torch.outer(W @ c, c), two + torch.outer(c, c)
        found[name] = (one @ torch.inverse(two)).contiguous()
    return found


def train_lora(unet: Any, targets: torch.Tensor, anchors: torch.Tensor, config: Any, steps: int = 60) -> Any:
    """A PEFT model of the UNet whose keys and values of the targets [n, d] have become the anchors'."""
    from peft import get_peft_model

    model = get_peft_model(unet.to(torch.float32), config)
    layers = [
        m for n, m in model.named_modules() if n.endswith(("attn2.to_k", "attn2.to_v")) and hasattr(m, "base_layer")
    ]
    torch.manual_seed(0)
    for layer in layers:
        for factor in layer.lora_A.values():
            torch.nn.init.normal_(factor.weight, std=0.1)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=0.02)
    for _ in range(steps):
        loss = torch.stack([(layer(targets) - layer.base_layer(anchors)).square().mean() for layer in layers]).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model


def lora_of(model: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor, float]]:
    """Down [r, d_in], up [d_out, r] and scale of each module of a PEFT model, by the module's own name."""
    return {
        name.removeprefix("base_model.model."): (
            module.lora_A["default"].weight.detach().clone(),
            module.lora_B["default"].weight.detach().clone(),
            float(module.scaling["default"]),
        )
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }


def save_kohya(file: Path, factors: Mapping[str, tuple[torch.Tensor, torch.Tensor, float]]) -> None:
    """The file that SPM's and kohya's programs write: `lora_unet_…`, and α with which the scale is α/r."""
    tensors: dict[str, torch.Tensor] = {}
    for module, (down, up, scale) in factors.items():
        key = f"lora_unet_{module.replace('.', '_')}"
        tensors |= {f"{key}.lora_down.weight": down.contiguous(), f"{key}.lora_up.weight": up.contiguous()}
        tensors[f"{key}.alpha"] = torch.tensor(scale * down.shape[0])
    save_file(tensors, file, {"prompts": "dog", "rank": "1", "alpha": "1.0"})
