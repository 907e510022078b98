"""Parts of a pipeline that bring text or pictures to the drawing by another way than what patches touch.

Nothing of them is opened or written. Whoever erases in a pipeline that has one has to know that it goes on as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from rasura.patches._io.files import read_config
from rasura.patches.errors import RasuraError

__all__ = ["find_uncovered", "find_uncovered_on_disk"]

_KINDS: Final = {
    (
        "ControlNet",
    ): "a ControlNet, which reads the prompt through cross-attention of its own: erased concepts reach the "
    "picture through it as before",
    ("T2IAdapter", "MultiAdapter"): "a T2I-Adapter, which reads a picture: no erasure of text covers it",
    (
        "IPAdapter",
        "CLIPVision",
        "SiglipVision",
        "ReduxImageEncoder",
    ): "an encoder of pictures (IP-Adapter and the like): no erasure of text covers what a picture brings",
    (
        "Ministral3ForCausalLM",
    ): "a language model that writes the prompt anew before it is read: words of its own may stand for a concept",
    ("PriorTransformer",): "a prior, which makes of the prompt what a picture of it looks like to an encoder of "
    "pictures: erased concepts reach the picture through it as before",
}
"""Words in the names of classes, and what such a part is."""
_SAFETY: Final = "safety_checker"
_INDEX: Final = "model_index.json"


def find_uncovered(components: Mapping[str, str]) -> tuple[str, ...]:
    """Sentences about parts of a pipeline that no patch covers, in name order.

    Args:
        components: the class of each part by its name in the pipeline.
    """
    return tuple(
        f"{name} is {what}"
        for name, kind in sorted(components.items())
        for words, what in _KINDS.items()
        if name != _SAFETY and any(word in kind for word in words)
    )


def find_uncovered_on_disk(folder: Path) -> tuple[str, ...]:
    """The same of a diffusers folder, by its `model_index.json`; none where that cannot be read."""
    return find_uncovered(dict(_indexed(folder)))


def _indexed(folder: Path) -> Iterator[tuple[str, str]]:
    try:
        index = read_config(folder / _INDEX)
    except (RasuraError, OSError, ValueError):
        return
    for name, said in index.items() if isinstance(index, dict) else ():
        if isinstance(said, list) and len(said) == 2 and isinstance(said[1], str):  # noqa: PLR2004  # library, class
            yield str(name), said[1]
