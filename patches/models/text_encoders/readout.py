"""What text states go through before a layer reads them: a norm, or a fixed network, row by row or prompt by prompt.

The modules are those of the denoiser's own class, with a base's own weights, in float32. A detector then sits on what
they give, which is as fixed a function of each token's state, or of a prompt's states, as these are of the prompt: what
is exact on rows stays exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, Final

import torch

from rasura.patches._io.files import read_config
from rasura.patches._io.tensor_bytes import dtype_name
from rasura.patches.errors import RasuraError, UnsupportedHostError
from rasura.patches.format.manifest_parts import TensorIdentity
from rasura.patches.hosts.interface import Host
from rasura.patches.models.library_output import load_diffusers, quiet

__all__ = ["Readout", "load_readout"]


@dataclass(frozen=True, slots=True, eq=False)
class Readout:
    """Modules in the order in which text goes through them.

    Attributes:
        names: with their component, such as `transformer.caption_projection`.
        parameters: their parameters, as the base has them.
        modules: on the CPU, float32, evaluating.
    """

    names: tuple[str, ...]
    parameters: tuple[TensorIdentity, ...]
    modules: tuple[Any, ...]

    def __call__(self, states: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """What is read of states [n, length, d] float32, of which these rows [n, length] bool are not hidden."""
        with torch.no_grad():
            for module in self.modules:
                fuse = _FUSING.get(type(module).__name__)
                states = module(states) if fuse is None else fuse(module, states, words)
        return states


def _fuse_layers(module: Any, states: torch.Tensor, words: torch.Tensor) -> Any:
    """Krea 2's: layers of the encoder meet in each token, and then the tokens that are not hidden meet each other."""
    stacked = states.reshape(*states.shape[:2], module.projector.in_features, -1)  # [n, length, layers, d]
    return module(stacked, attention_mask=words[:, None, None, :])


_FUSING: Final[Mapping[str, Callable[[Any, torch.Tensor, torch.Tensor], Any]]] = {"Krea2TextFusion": _fuse_layers}
"""Classes that see all rows of a prompt, and how a denoiser calls them."""
_MASKED: Final = "attention_mask"


def load_readout(host: Host, folder: Path, names: Sequence[str]) -> Readout:
    """The modules of a diffusers folder as they were before any patch.

    Args:
        host: the folder's, for the weights.
        folder: for the configuration of the denoiser.
        names: of the modules.

    Raises:
        UnsupportedHostError: the denoiser has no such modules, or other parameters.
    """
    component = names[0].partition(".")[0]
    infos = host.parameters()
    kept = sorted(name for name in infos if name.startswith(tuple(f"{module}." for module in names)))
    originals, digests = host.originals(kept), host.original_digests(kept)
    try:
        modules = tuple(_loaded(name, _skeleton(folder / component), originals) for name in names)
    except (AttributeError, RuntimeError, ValueError, KeyError, TypeError, RasuraError) as error:
        raise UnsupportedHostError(
            f"{folder}: what text goes through ({', '.join(names)}) cannot be loaded: {error}",
            hint="rasura probe MODEL",
        ) from error
    identities = tuple(
        TensorIdentity(name, dtype_name(originals[name].dtype), tuple(originals[name].shape), digests[name])
        for name in kept
    )
    return Readout(tuple(names), identities, modules)


def _skeleton(folder: Path) -> Any:
    """The denoiser without weights."""
    config = read_config(folder / "config.json")
    with quiet(), torch.device("meta"):
        return getattr(load_diffusers(), str(config["_class_name"])).from_config(config)


def _loaded(name: str, denoiser: Any, originals: Any) -> Any:
    module = denoiser.get_submodule(name.partition(".")[2])
    if any(True for _ in module.buffers()):
        raise ValueError(f"{name} has buffers")
    own = {key.removeprefix(f"{name}."): tensor for key, tensor in originals.items() if key.startswith(f"{name}.")}
    kind = type(module).__name__
    if kind not in _FUSING and _MASKED in signature(module.forward).parameters:
        raise ValueError(f"{name}: how a {kind} is called is not known")
    module = module.to_empty(device="cpu").to(torch.float32)
    module.load_state_dict({key: tensor.to(torch.float32) for key, tensor in own.items()}, strict=True)
    return module.requires_grad_(False).eval()  # noqa: FBT003  # torch's own signature
