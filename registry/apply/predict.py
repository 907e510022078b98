"""What a set of patches makes of a host's parameters, computed anew and written nowhere."""

from __future__ import annotations

from rasura.patches._io.tensor_bytes import digest_tensors
from rasura.patches.algebra.compose import compose_all, layers_of
from rasura.patches.algebra.stack import Stack
from rasura.patches.hosts.interface import Host
from rasura.patches.types import Digest, ParamName
from rasura.registry.apply.hosts import side_branches as beside
from rasura.registry.apply.hosts.branches import make_branches
from rasura.registry.registry import Registry
from rasura.registry.trust.verified_patch import load_signed

__all__ = ["predict_digests"]


def predict_digests(registry: Registry, host: Host, applied: Stack) -> dict[ParamName, Digest]:
    """The digest that every parameter of a set must have, from the host's originals and the verified patches.

    Raises:
        VerificationError, NotFoundError: a patch is not good, or not here.
    """
    read = {patch_id: load_signed(registry, patch_id, in_force=True).patch for patch_id in applied}
    layers = {layer.name: layer for layer in layers_of((read[p].tensors.increments, s) for p, s in applied.items())}
    coded = beside.find_quantised(host, layers)  # these have no originals that anything could be added to
    originals = host.originals(name for name in layers if name not in coded)
    # From the originals, never from what is there: that is what is being asked about.
    merged = digest_tensors(compose_all(originals, [layers[name] for name in originals]))
    branches = beside.entries(host, make_branches(coded, layers))
    return {**merged, **{name: digest for name, (_, _, _, digest) in branches.items()}}
