"""The calls that send patches to the Hugging Face Hub, and fetch them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rasura import __version__
from rasura.api.calls._calls import Calls
from rasura.api.hints import in_python

if TYPE_CHECKING:
    from rasura.registry import hub
    from rasura.registry.hub.transfer import Pull
    from rasura.registry.live.arguments import Ids

__all__ = ["HubCalls"]


class HubCalls(Calls):
    """Patches to and from the Hub."""

    # The Hub

    @in_python
    def push(
        self,
        ids: Ids,
        repo: str,
        *,
        base_model: str | None = None,
        licence: str | None = None,
        private: bool = False,
        endpoint: str | None = None,
        token: str | None = None,
        dry_run: bool = False,
        reason: str = "",
    ) -> hub.PushReceipt:
        """Push patches to a Hub repository, with a model card, as one commit (`rasura push`).

        Args:
            ids: the patches.
            repo: `org/name`.
            base_model: the base's id on the Hub; None: what the card says already.
            licence: for the model card; None: as signed, as the card says already, or as the base's page says.
            private: make the repository private if it is new.
            endpoint: the Hub; None: what huggingface_hub is set to.
            token: access token; None: what huggingface_hub is set to.
            dry_run: look, and write nothing, there or here.
            reason: why, for the log.

        Raises:
            HubError: the Hub did not do what was asked.
            VerificationError: a patch that this registry would not apply.
        """
        from rasura.registry.hub.remote import Remote
        from rasura.registry.hub.transfer import push_patches

        return push_patches(
            self.store,
            list(dict.fromkeys(self._resolve(ids))),
            repo,
            tool_version=__version__,
            base_model=base_model,
            licence=licence,
            private=private,
            remote=Remote(endpoint, token),
            draft=self._draft("patch.push", reason),
            dry_run=dry_run,
        )

    @in_python
    def pull(
        self,
        reference: str,
        *,
        only: Ids = (),
        endpoint: str | None = None,
        token: str | None = None,
        dry_run: bool = False,
        reason: str = "",
    ) -> Pull:
        """Pull the patches of a Hub repository that a key trusted here has signed (`rasura pull`).

        What is not trusted here raises nothing while something else is: it stands in `refused` of what is returned.

        Args:
            reference: `org/name` or `org/name@revision`.
            only: ids, beginnings of ids, or concepts of the patches that are wanted; none: all.
            endpoint: the Hub; None: what huggingface_hub is set to.
            token: access token; None: what huggingface_hub is set to.
            dry_run: look, and write nothing, there or here.
            reason: why, for the log.

        Raises:
            HubError: the Hub did not do what was asked.
            VerificationError: no patch there counts here; nothing is registered.
            NotFoundError, AmbiguousIdError: what was named is not there, or is several.
        """
        from rasura.registry.hub.remote import Remote
        from rasura.registry.hub.transfer import pull_patches

        draft = self._draft("patch.pull", reason)
        wanted = (only,) if isinstance(only, str) else tuple(only)
        remote = Remote(endpoint, token)
        return pull_patches(self.store, reference, only=wanted, remote=remote, draft=draft, dry_run=dry_run)
