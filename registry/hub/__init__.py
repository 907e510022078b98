"""Patches to and from the Hugging Face Hub: transport, and no trust but in names and sizes.

    refs.py   which repository, at which commit
    wire.py   the calls, with our errors and bounded retries
    push.py   patches into one commit
    pull.py   signed files out of one commit

Who may be believed is decided by the function that `fetch` is handed.
"""

from rasura.registry.hub.client import Patience
from rasura.registry.hub.pull import FetchedPatch, FetchLimits, fetch, resolve
from rasura.registry.hub.push import PatchFiles, PushReceipt, push
from rasura.registry.hub.refs import PinnedRepo, parse_ref

__all__ = [
    "FetchLimits",
    "FetchedPatch",
    "PatchFiles",
    "Patience",
    "PinnedRepo",
    "PushReceipt",
    "fetch",
    "parse_ref",
    "push",
    "resolve",
]
