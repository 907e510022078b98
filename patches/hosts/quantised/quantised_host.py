"""Live modules some or all of whose linear layers are quantised: one host, two ways of writing.

Plain parameters are written as `TorchHost` does, bit for bit. A quantised layer keeps its bytes and gets a side branch
(`rasura.patches.hosts.quantised.side_branch`). Under its weight's name it answers

    parameters          the kind of its codes in place of a dtype, and the shape of the weight that they stand for
    digests             of its codes and of what is attached to it, from what is there
    original_digests    of its codes with nothing attached
    kept                yes, for as long as something is attached

and its values cannot be read. A motion exchanges branches first and writes plain parameters inside that block, so that
either both are done or neither is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Self

from torch import nn

from rasura.patches._io import canonical_json
from rasura.patches._io.sha256 import digest_of
from rasura.patches.algebra.factors import BranchFactors
from rasura.patches.hosts.interface import ParameterInfo, QuantisedFrom, QuantisedPart
from rasura.patches.hosts.live.originals import KeepOn
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.hosts.quantised.quantised_layers import digest_codes
from rasura.patches.hosts.quantised.side_branch import SideBranches
from rasura.patches.types import Digest, ParamName

__all__ = ["QuantisedHost"]


class QuantisedHost(TorchHost):
    """Modules in memory with quantised linear layers; see `TorchHost`."""

    quantised_from: QuantisedFrom | None = None
    """Without it, branches are only taken away."""

    def __init__(
        self, components: Mapping[str, nn.Module], label: str, *, keep_on: KeepOn = "cpu", remember: int = 2
    ) -> None:
        """See `TorchHost`."""
        super().__init__(components, label, keep_on=keep_on, remember=remember)
        self._branches = SideBranches(components, label, base=None)

    @classmethod
    def told(
        cls,
        model: object,
        label: str = "",
        *,
        base: QuantisedFrom | None,
        keep_on: KeepOn = "cpu",
        remember: int = 2,
    ) -> Self:
        """As `of`, with the word of which base was quantised.

        Raises:
            UnsupportedHostError: neither a pipeline nor one of its modules.
        """
        made = cls.of(model, label, keep_on=keep_on, remember=remember)
        made.quantised_from = base
        return made

    def quantised_part(self) -> QuantisedPart:
        """This host itself, also while none of its layers is quantised."""
        return self

    def layers(self) -> Mapping[ParamName, ParameterInfo]:
        """The quantised linear layers, in name order, each with the kind of its codes in place of a dtype."""
        found = self._branches.layers()
        return {name: ParameterInfo(name, layer.kind, layer.shape) for name, layer in found.items()}

    def attached(self) -> frozenset[ParamName]:
        """Beside which layers something runs now, whoever attached it."""
        return self._branches.attached_names()

    @property
    def host_id(self) -> str:
        """32 hexadecimal digits; kept with the originals and in the hooks, for as long as something is applied."""
        return self._branches.identity() or super().host_id

    def kept(self) -> frozenset[ParamName]:
        """The parameters that something is applied to, in either way."""
        return super().kept() | self.attached()

    def parameters(self) -> Mapping[ParamName, ParameterInfo]:
        """As of `TorchHost`, and the quantised layers."""
        return dict(sorted({**super().parameters(), **self.layers()}.items()))

    def digests(self, names: Iterable[ParamName]) -> dict[ParamName, Digest]:
        """As of `TorchHost`; of a quantised layer, over its codes and what is attached to it."""
        plain, coded = self._split(names)
        branches = {name: branch.sha256 for name, branch in self._branches.attached().items()} if coded else {}
        return super().digests(plain) | {n: _together(codes, branches.get(n)) for n, codes in self._codes(coded)}

    def original_digests(self, names: Iterable[ParamName]) -> dict[ParamName, Digest]:
        """As of `TorchHost`; of a quantised layer, over its codes alone."""
        plain, coded = self._split(names)
        return super().original_digests(plain) | {name: _together(codes, None) for name, codes in self._codes(coded)}

    def predicted(self, wanted: Mapping[ParamName, BranchFactors | None]) -> dict[ParamName, Digest]:
        """What `digests` will say of quantised layers with these factors attached."""
        return {n: _together(codes, f.sha256 if (f := wanted[n]) else None) for n, codes in self._codes(list(wanted))}

    def ensure_writable(self, names: Iterable[ParamName]) -> None:
        """Refuse now what writing would have to refuse, in either way."""
        plain, coded = self._split(names)
        super().ensure_writable(plain)
        self._branches.ensure_attachable(coded)

    def exchanging(self, wanted: Mapping[ParamName, BranchFactors | None]) -> AbstractContextManager[None]:
        """Attach to quantised layers for good if the block succeeds; see `SideBranches.exchanging`."""
        return self._branches.exchanging(wanted, self.host_id)

    def _split(self, names: Iterable[ParamName]) -> tuple[list[ParamName], list[ParamName]]:
        wanted, coded = list(names), self._branches.layers()
        return [name for name in wanted if name not in coded], [name for name in wanted if name in coded]

    def _codes(self, names: list[ParamName]) -> list[tuple[ParamName, Digest]]:
        modules = self._branches.modules(names) if names else {}
        return [(name, digest_codes(name, module)) for name, module in modules.items()]


def _together(codes: Digest, branch: Digest | None) -> Digest:
    return digest_of(canonical_json.dumps({"branch": branch, "codes": codes}))
