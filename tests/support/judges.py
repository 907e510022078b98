"""Judges for tests: real files of random weights, so their opinions mean nothing and are always the same."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from support.models.tiny import tiny_tokenizer
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from rasura.evaluation.judges.classifier import Network


def tiny_classifier(folder: Path, objects: Sequence[str] = ("dog", "cat"), styles: Sequence[str] = ("ink",)) -> Path:
    """A classifier's folder."""
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


def tiny_onnx(
    path: Path, outputs: int, *, first: bool = True, side: int | str = 8, batch: int | str = "n", external: bool = False
) -> Path:
    """An ONNX model whose score i is the mean of channel i; further outputs are 0. Written byte by byte."""
    weights = np.eye(3, outputs, dtype="<f4")
    where = _part(13, _part(1, "location") + _part(2, "../weights")) + _number(14, 1)
    tensor = _number(1, 3) + _number(1, outputs) + _number(2, 1) + _part(8, "w")
    tensor += where if external else _part(9, weights.tobytes())
    axes = _part(1, "axes") + b"".join(_number(8, i) for i in ((2, 3) if first else (1, 2))) + _number(20, 7)
    flat = _part(1, "keepdims") + _number(3, 0) + _number(20, 2)
    nodes = (
        _part(1, "x") + _part(2, "m") + _part(4, "ReduceMean") + _part(5, axes) + _part(5, flat),
        _part(1, "m") + _part(1, "w") + _part(2, "y") + _part(4, "MatMul"),
    )
    graph = b"".join(_part(1, node) for node in nodes) + _part(2, "colours") + _part(5, tensor)
    graph += _part(11, _value("x", (batch, 3, side, side) if first else (batch, side, side, 3)))
    graph += _part(12, _value("y", (batch, outputs)))
    path.write_bytes(_number(1, 8) + _part(7, graph) + _part(8, _part(1, "") + _number(2, 13)))
    return path


def tiny_detector(path: Path, *, boxes_last: bool = True, side: int = 8) -> Path:
    """An ONNX model of which each pixel is a box: place red, green, blue, red, scores green and blue. Byte by byte."""
    flat = np.array([0, 3, side * side], dtype="<i8")
    shape = _number(1, 3) + _number(2, 7) + _part(8, "s") + _part(9, flat.tobytes())
    order = np.array([0, 1, 2, 0, 1, 2], dtype="<i8")
    picked = _number(1, 6) + _number(2, 7) + _part(8, "i") + _part(9, order.tobytes())
    channels = _part(1, "axis") + _number(3, 1) + _number(20, 2)
    turned = _part(1, "perm") + b"".join(_number(8, i) for i in (0, 2, 1)) + _number(20, 7)
    nodes = [
        _part(1, "x") + _part(1, "s") + _part(2, "f") + _part(4, "Reshape"),
        _part(1, "f") + _part(1, "i") + _part(2, "y" if boxes_last else "g") + _part(4, "Gather") + _part(5, channels),
    ]
    if not boxes_last:
        nodes.append(_part(1, "g") + _part(2, "y") + _part(4, "Transpose") + _part(5, turned))
    graph = b"".join(_part(1, node) for node in nodes) + _part(2, "boxes") + _part(5, shape) + _part(5, picked)
    graph += _part(11, _value("x", ("n", 3, side, side)))
    graph += _part(12, _value("y", ("n", 6, side * side) if boxes_last else ("n", side * side, 6)))
    path.write_bytes(_number(1, 8) + _part(7, graph) + _part(8, _part(1, "") + _number(2, 13)))
    return path


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(_part(1, _number(1, d) if isinstance(d, int) else _part(2, d)) for d in shape)
    return _part(1, name) + _part(2, _part(1, _number(1, 1) + _part(2, dims)))


def _part(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
