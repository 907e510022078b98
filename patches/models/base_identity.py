"""The identity of a base: every patchable parameter by content, and what turns prompts into embeddings.

Identity is per parameter, so that an untouched VAE, another shard layout or other header bytes change nothing, and a
patch asks only for the parameters that it touches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import torch

from rasura.patches._io import canonical_json
from rasura.patches._io.sha256 import digest_of
from rasura.patches._io.tensor_bytes import digest_tensor, digest_tensor_set, dtype_name, torch_dtype
from rasura.patches.errors import BaseMismatchError, InputError, UnsupportedHostError
from rasura.patches.format.manifest_parts import BaseSpec, TensorIdentity
from rasura.patches.format.trace_spec import TraceSpec
from rasura.patches.hosts.interface import COMPONENTS, Host, ParameterInfo
from rasura.patches.models.families import find_family
from rasura.patches.models.refuse_family import refuse_unread, refuse_wide
from rasura.patches.types import SHORT, Digest, ParamName

CAST_DTYPES: Final = ("F16", "BF16", "F32")
"""The dtypes in which people load a model; a cast is one IEEE rounding, so its digest can be known beforehand."""

_BOTH: Final = (".to_k.weight", ".to_v.weight")
TEXT_LAYERS: Final = "text"
LAYERS: Final = {"k": _BOTH[:1], "v": _BOTH[1:], "kv": _BOTH, TEXT_LAYERS: _BOTH}
_CROSS_ATTENTION: Final = ".attn2"
_OVER_FRAMES: Final = (".motion_modules.", ".temp_attentions.", ".transformer_in.")
_DENOISERS: Final = ("unet.", "transformer.", "transformer_2.")
_TEXT_ENCODERS: Final = tuple(f"{name}." for name in COMPONENTS if name.startswith("text_encoder"))


@dataclass(frozen=True, slots=True)
class BaseIdentity:
    """What a base is, whatever its files are called.

    Attributes:
        parameters: every parameter of the denoiser and the text encoders, sorted by name.
        text_encoder: tensor-set digest of the parameters of all text encoders, in the spelling with `text_model.`.
        tokenizer: SHA-256 of the canonical JSON of vocabulary, merges, length and special ids; with several tokenizers
            that of an object which holds each under its name.
        trace: what its denoiser was seen to read, which is no part of what it is; None where that was not looked at.
    """

    parameters: tuple[TensorIdentity, ...]
    text_encoder: Digest
    tokenizer: Digest
    trace: TraceSpec | None = None

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON of parameter-set digest, text-encoder digest and tokenizer digest."""
        names = [(p.name, p.dtype, p.shape, p.sha256) for p in self.parameters]
        document: dict[str, canonical_json.JsonValue] = {
            "parameters_sha256": digest_tensor_set(names),
            "text_encoder_sha256": self.text_encoder,
            "tokenizer_sha256": self.tokenizer,
        }
        return digest_of(canonical_json.dumps(document))

    def spec(
        self, touched: tuple[TensorIdentity, ...], through: tuple[TensorIdentity, ...] = (), read_as: str = ""
    ) -> BaseSpec:
        """What a manifest says of this base.

        Args:
            touched: the parameters that the patch changes.
            through: what text goes through before these read it.
            read_as: the dtype in which the text encoders read; "" is float32.
        """
        trace = None if self.trace is None else self.trace.of(parameter.name for parameter in touched)
        known = trace if trace is not None and trace.layers else None  # none of a patch of the text encoder
        return BaseSpec(self.digest, touched, self.text_encoder, self.tokenizer, through, known, read_as)


def identify(host: Host, tokenizer_state: Mapping[str, canonical_json.JsonValue]) -> BaseIdentity:
    """Hash every patchable parameter of a host, as it was before any patch.

    Raises:
        UnsupportedHostError: no cross-attention or no text encoder.
    """
    infos = host.parameters()
    digests = host.original_digests(infos)
    parameters = tuple(TensorIdentity(name, i.dtype, i.shape, digests[name]) for name, i in sorted(infos.items()))
    text = [(p.name, p.dtype, p.shape, p.sha256) for p in parameters if p.name.startswith(_TEXT_ENCODERS)]
    if not text:
        raise UnsupportedHostError(f"{host.location} has no text encoder: expected text_encoder/")
    tokenizer = digest_of(canonical_json.dumps(tokenizer_state))
    return BaseIdentity(parameters, digest_tensor_set(text), tokenizer)


def find_cross_attention(
    infos: Mapping[ParamName, ParameterInfo], layers: str, width: int | None = None
) -> list[ParamName]:
    """Names of the linear layers that read text embeddings as they are: in a UNet, cross-attention projections.

    Args:
        infos: a host's parameters.
        layers: "k", "v" or "kv"; or "text": all of them, whatever the family calls them.
        width: expected d_in, that of the embeddings that they are to read; None for any.

    Raises:
        InputError: other layers.
        UnsupportedHostError: there are none, they read something else (the message says what the family has instead),
            or embeddings of another width, or of one whose d × d matrices are too large.
    """
    if layers not in LAYERS:
        raise InputError(f"layers {layers!r}: expected one of {', '.join(LAYERS)}", hint="rasura methods")
    family = find_family(infos)
    if layers == TEXT_LAYERS and family is not None:
        found = family.entrances(infos)
    else:
        found = [
            name
            for name in sorted(infos)
            if name.startswith(_DENOISERS)
            and _CROSS_ATTENTION in name
            and name.endswith(LAYERS[layers])
            and not any(place in name for place in _OVER_FRAMES)
        ]
    refuse_unread(infos, found, "cross-attention projection of text (attn2.to_k, attn2.to_v)")
    if width is None:
        return found
    widths = {infos[name].shape[-1] for name in found}
    if widths != {width} and not (family is not None and family.layered is not None and width in widths):
        raise UnsupportedHostError(
            f"expected embeddings of width {' and '.join(map(str, sorted(widths)))}, as the model reads them, "
            f"got {width} from the text encoder",
            hint="rasura methods",
        )
    refuse_wide(infos, width)
    return found


def find_casts(tensor: torch.Tensor) -> dict[str, Digest]:
    """Digests of a parameter under every dtype of `CAST_DTYPES`, its own included."""
    return {name: digest_tensor(tensor.to(torch_dtype(name))) for name in CAST_DTYPES}


def check_touched(expected: Iterable[TensorIdentity], pristine: Mapping[ParamName, torch.Tensor], where: str) -> None:
    """Refuse a host whose pristine parameters are not those that a patch was computed on.

    A host that holds the same numbers in a wider dtype is the same base: casting back gives the named bytes.

    Raises:
        BaseMismatchError: naming the first parameter that differs.
    """
    for parameter in expected:
        tensor = pristine.get(parameter.name)
        if tensor is None or tuple(tensor.shape) != parameter.shape:
            got = "none" if tensor is None else str(list(tensor.shape))
            raise BaseMismatchError(
                f"{where}: {parameter.name}: expected shape {list(parameter.shape)}, got {got}; "
                "the patch was made for another model",
                hint="rasura base list",
            )
        if not _same(parameter, tensor):
            raise _other_weights(parameter, tensor, where)


def _other_weights(expected: TensorIdentity, tensor: torch.Tensor, where: str) -> BaseMismatchError:
    own, got = torch_dtype(expected.dtype), dtype_name(tensor.dtype)
    if torch.promote_types(own, tensor.dtype) != tensor.dtype:
        wide = [name for name in CAST_DTYPES if torch.promote_types(own, torch_dtype(name)) == torch_dtype(name)]
        return BaseMismatchError(
            f"{where}: {expected.name}: expected {' or '.join(wide)}, which hold the numbers that the patch was "
            f"computed on, got {got}, which rounds numbers of {expected.dtype}; the model may be the same, but not to "
            f"the bit: load it afresh with dtype={own}, since casting this one does not bring the numbers back",
            hint="rasura base list",
            parameter=expected.name,
            dtypes=tuple(wide),
        )
    return BaseMismatchError(
        f"{where}: {expected.name}: expected sha256 {expected.sha256[:SHORT]}…, got {digest_tensor(tensor)[:SHORT]}… "
        f"({got}); the patch was made for other weights",
        hint="rasura base list",
        parameter=expected.name,
    )


def _same(expected: TensorIdentity, tensor: torch.Tensor) -> bool:
    own = torch_dtype(expected.dtype)
    if digest_tensor(tensor.to(own)) != expected.sha256:
        return False
    return bool(torch.equal(tensor.to(own).to(tensor.dtype), tensor))
