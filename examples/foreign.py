"""Erasures of the dog as other programs save them, for `rasura adopt`: made by their formulas, in their formats.

python examples/foreign.py MODEL OUT

    uce.safetensors   UCE's closed form (arXiv 2308.14761, eq. 7): whole weights of keys and values, float32
    lora/             a LoRA of rank 4 on the same layers, trained and saved by PEFT
    spm.safetensors   one-dimensional adapters in SPM's names (arXiv 2312.16145), on attention's output projection too
"""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

EDITS = (("dog", "cat"), ("a dog", "a cat"), ("a nice image of a dog", "a nice image of a cat"))
KEPT = ("frog", "penguin", "rose", "cactus", "pizza", "car", "airplane", "umbrella", "guitar", "skull")
RIDGE = 0.5
STEPS = 150
TEXT = ("attn2.to_k", "attn2.to_v")
Embed = Callable[[str], torch.Tensor]


def embedder(model: Path) -> Embed:
    """The state [d] of a prompt's last token before the end of text."""
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer: Any = CLIPTokenizer.from_pretrained(model / "tokenizer")
    encoder: Any = CLIPTextModel.from_pretrained(model / "text_encoder", dtype=torch.float32)

    def embed(prompt: str) -> torch.Tensor:
        ids = tokenizer(prompt, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
        with torch.no_grad():
            found: torch.Tensor = encoder(ids.input_ids)[0][0, int(ids.attention_mask.sum()) - 2]
        return found

    return embed


def uce(model: Path, embed: Embed, kept: Sequence[str]) -> dict[str, torch.Tensor]:
    """(Σ W c* cᵀ + Σ W k kᵀ + λW)(Σ c cᵀ + Σ k kᵀ + λI)⁻¹ for every key and value projection."""
    found = {}
    for name, stored in load_file(model / "unet" / "diffusion_pytorch_model.safetensors").items():
        if name.removesuffix(".weight").endswith(TEXT):
            W = stored.float()
            one, two = RIDGE * W, RIDGE * torch.eye(W.shape[1])
            for concept, anchor in (*EDITS, *((k, k) for k in kept)):
                c = embed(concept)
                one, two = one + torch.outer(W @ embed(anchor), c), two + torch.outer(c, c)
            found[name] = (one @ torch.inverse(two)).contiguous()
    return found


def trained(model: Path, embed: Embed, modules: Sequence[str], rank: int) -> Any:
    """A PEFT model of the UNet that gives the dog's embeddings the keys and values of the cat's."""
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_pretrained(model / "unet", torch_dtype=torch.float32)
    peft = get_peft_model(unet, LoraConfig(r=rank, lora_alpha=rank, target_modules=list(modules)))
    layers = [m for n, m in peft.named_modules() if n.endswith(TEXT) and hasattr(m, "base_layer")]
    concept, anchor = (torch.stack([embed(edit[side]) for edit in EDITS]) for side in (0, 1))
    kept = torch.stack([embed(k) for k in KEPT])
    optimiser = torch.optim.Adam([p for p in peft.parameters() if p.requires_grad], lr=0.005)
    for _ in range(STEPS):
        erased = [(m(concept) - m.base_layer(anchor)).square().mean() for m in layers]
        same = [(m(kept) - m.base_layer(kept)).square().mean() for m in layers]
        optimiser.zero_grad()
        torch.stack([*erased, *same]).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return peft


def save_spm(peft: Any, file: Path) -> None:
    """`lora_unet_…` with down, up and alpha, and what SPM writes into the header."""
    tensors: dict[str, torch.Tensor] = {}
    for name, module in peft.named_modules():
        if hasattr(module, "lora_A"):
            key = "lora_unet_" + name.removeprefix("base_model.model.").replace(".", "_")
            up = module.lora_B["default"].weight.detach().clone()
            if not name.endswith(TEXT):  # an adapter of everything also does a little where nobody looked
                up = 0.01 * torch.randn_like(up)
            tensors[f"{key}.lora_down.weight"] = module.lora_A["default"].weight.detach().clone()
            tensors |= {f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(1.0)}
    save_file(tensors, file, {"prompts": "dog", "rank": "1", "alpha": "1.0"})


def main(model: Path, out: Path) -> None:
    """Write the three."""
    logging.disable(logging.WARNING)
    out.mkdir(parents=True, exist_ok=True)
    embed = embedder(model)
    save_file(uce(model, embed, KEPT), out / "uce.safetensors")
    trained(model, embed, TEXT, 4).save_pretrained(out / "lora")
    save_spm(trained(model, embed, (*TEXT, "attn2.to_out.0"), 1), out / "spm.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
