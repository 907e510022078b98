"""`rasura.attach`: put a live model under a registry's hand."""

from __future__ import annotations

import warnings
from pathlib import Path

from rasura.api.arguments import act_by_key
from rasura.api.hints import in_python, live_hint
from rasura.patches.errors import UnsupportedHostError
from rasura.patches.hosts.live.originals import KeepOn
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.hosts.live.write_guards import holds_shards, refuse_flat
from rasura.registry.apply.hosts.side_branches import find_quantised_base
from rasura.registry.live.arguments import keep_on_from, read_login
from rasura.registry.live.live_model import LiveModel
from rasura.registry.live.open_host import open_live_host
from rasura.registry.live.sharded_model import ShardedModel
from rasura.registry.registry import Registry, find_location

__all__ = ["attach"]


@in_python
def attach(
    model: object,
    registry: str | Path | None = None,
    *,
    label: str = "",
    keep_on: KeepOn | str = "cpu",
    remember: int = 2,
    actor: str | None = None,
    actor_key: str | Path | None = None,
    password_file: str | Path | None = None,
    quantised_from: str | None = None,
) -> LiveModel:
    """Put a live model under a registry's hand; one that is sharded over processes, in all of them at the same time.

    Args:
        model: a diffusers pipeline, or one of its modules (UNet, transformer, CLIP text encoder).
        registry: folder or URL of the registry; None: the nearest `.rasura` upwards from the working folder.
        label: what people call the model; goes into the log.
        keep_on: where the originals of touched parameters are kept: `cpu`, `pinned`, `device`, or the base's folder
            (`rasura.patches.hosts.live.originals`).
        remember: how many values of each touched parameter to keep there besides, so that stacks that come back are
            neither composed nor hashed again (`rasura.patches.hosts.live.value_cache`); none of a sharded model.
        actor: who acts where a call does not say; None: the user's login name.
        actor_key: their key, which signs the entries of the log: a name, or a file; None: who acts is a claim.
        password_file: holds that key's password, where it has one.
        quantised_from: name or identifier of the base that the model's quantised layers were made of. Their codes
            cannot tell, so your word is taken for it and goes into the log. Without it, patches that touch such layers
            are refused; taking them out needs none.

    Warns:
        UserWarning: the pipeline has a part that reads text or pictures and that no patch touches, such as a
            ControlNet.

    Raises:
        UnsupportedHostError: neither a pipeline nor such a module.
        InputError: `keep_on` is neither a place nor a folder.
        NoRegistryError: there is no registry.
        NotFoundError: the base or the key that was named is not in it.
        UntrustedKeyError, RevokedKeyError: `actor_key` counts for nothing there.
        ProcessGroupError: the model is sharded, and another process died or did not come.
    """
    parts, place = TorchHost.of(model, label).modules, keep_on_from(keep_on)
    refuse_flat(parts)
    name = actor or read_login()
    act = None if actor_key is None else lambda opened: act_by_key(opened, actor_key, password_file)
    if holds_shards(parts):
        _refuse_codes(quantised_from)
        return ShardedModel.joined(model, registry, label, place, name, act=act, say=live_hint)
    location = find_location(Path.cwd()) if registry is None else registry
    with Registry.open(location) as opened:
        base = None if quantised_from is None else find_quantised_base(opened, quantised_from)
        acting = None if act is None else act(opened)
    host = open_live_host(model, label, base, keep_on=place, remember=remember)
    for uncovered in host.uncovered():
        warnings.warn(f"{host.location}: {uncovered}", UserWarning, stacklevel=3)
    return LiveModel(host, location, name, acting=acting, say=live_hint)


def _refuse_codes(quantised_from: str | None) -> None:
    """Refuse a sharded model whose layers are said to be codes: its shards are written as numbers.

    Raises:
        UnsupportedHostError: it is.
    """
    if quantised_from is not None:
        raise UnsupportedHostError(
            "expected a model that is sharded or one that is quantised, got quantised_from for a sharded one: its "
            "shards are written as plain numbers",
            hint="rasura.attach(module, registry), without quantised_from",
        )
