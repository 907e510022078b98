"""The models that a registry knows, by the path that a person types."""

from __future__ import annotations

import uuid
from pathlib import Path

from rasura.patches.errors import NotFoundError
from rasura.patches.hosts.disk.layouts.compvis_layout import find_model
from rasura.patches.hosts.disk.state_folder import StateFolder
from rasura.registry._storage.records.records import HostRecord
from rasura.registry.registry import Registry

__all__ = ["find_host"]


def find_host(registry: Registry, model: Path) -> HostRecord:
    """What the registry knows of a model on disk, by the identity that it carries or by its path; opens no weights.

    Raises:
        NotFoundError: nothing was ever applied to it.
    """
    try:
        path = find_model(model)
    except NotFoundError:
        path = model.absolute()  # one that is gone may still be asked about
    identity = StateFolder(path).identity()
    known = registry.find_host(str(uuid.UUID(identity))) if identity else None
    if (known := known or registry.find_host(str(path))) is None:
        raise NotFoundError(f"nothing was ever applied to {model}", hint="rasura host list")
    return known
