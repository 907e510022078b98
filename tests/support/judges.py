"""Judges for tests: real files of random weights, so their opinions mean nothing and are always the same."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.models.tiny import tiny_tokenizer


def tiny_classifier(folder: Path, objects: Sequence[str] = ("dog", "cat"), styles: Sequence[str] = ("ink",)) -> Path:
    """A classifier's folder."""
    import torch
    from safetensors.torch import save_file

    from rasura.evaluation.judges.classifier import Network

    shape: dict[str, Any] = {"channels": [8, 8], "strides": [2, 2], "hidden": 16}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(objects=len(objects), styles=len(styles), **shape)
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "classifier.safetensors")
    facts = {"objects": list(objects), "styles": list(styles), "architecture": shape}
    (folder / "classifier.json").write_text(json.dumps(facts))
    return folder


def tiny_clip(folder: Path) -> Path:
    """A CLIP model's folder: model, tokenizer, image processor."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    tokenizer = tiny_tokenizer()
    small: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    text = CLIPTextConfig(
        **small,
        vocab_size=len(tokenizer),
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(**small, image_size=32, patch_size=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
