"""Patches to and from the Hugging Face Hub: transport, and no trust but in names and sizes.

    refs.py   which repository, at which commit
    http.py   one request, bounded in bytes and time
    client.py the calls, with our errors, one layer of retries and one deadline
    upload.py files into one commit
    push.py   patches and the card into one commit
    pull.py   signed files out of one commit: pull_choice.py says which, pull_source.py reads and refuses
    card/     the repository's page

Who may be believed is decided by the function that `fetch` is handed.
"""

from rasura.registry.hub.client import Patience
from rasura.registry.hub.pull import Fetched, FetchedPatch, explain, fetch, resolve_revision
from rasura.registry.hub.pull_source import FetchLimits, RefusedPatch
from rasura.registry.hub.push import PatchFiles, PushReceipt, push
from rasura.registry.hub.refs import PinnedRepo, parse_ref

__all__ = [
    "FetchLimits",
    "Fetched",
    "FetchedPatch",
    "PatchFiles",
    "Patience",
    "PinnedRepo",
    "PushReceipt",
    "RefusedPatch",
    "explain",
    "fetch",
    "parse_ref",
    "push",
    "resolve_revision",
]
