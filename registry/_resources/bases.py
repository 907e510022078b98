"""Bases, retain sets and bases of protected spaces: what patches refer to."""

from dataclasses import replace

from rasura.registry._resources.resource import Opened
from rasura.registry._storage.records import BaseRecord, BaseSummary, BasisRecord, Draft, RetainSetRecord
from rasura.registry.rows import bases

__all__ = ["Bases"]


class Bases(Opened):
    """What a registry does with bases, and with what patches of them protect."""

    def add_base(self, record: BaseRecord, entry: Draft) -> bool:
        """Adds a base; False where these weights are here under this name.

        Raises:
            ExistsError: the weights have another name here, or the name other weights.
        """
        draft = replace(entry, base=entry.base or record.digest)
        return self._journal.change(draft, lambda session: [bases.insert(session, record)]) is not None

    def bases(self) -> tuple[BaseSummary, ...]:
        """All bases by name, without their parameters."""
        with self.reading() as session:
            return bases.every(session)

    def base(self, ref: str) -> BaseRecord:
        """The base with this name, digest or abbreviation, with its parameters.

        Raises:
            NotFoundError, AmbiguousIdError: no such base, or several.
        """
        with self.reading() as session:
            return bases.load(session, ref)

    def add_retain_set(self, record: RetainSetRecord, entry: Draft) -> bool:
        """Adds a retain set; False where these prompts are here, under whatever name.

        Raises:
            ExistsError: the name belongs to other prompts.
        """
        return self._journal.change(entry, lambda session: [bases.insert_retain_set(session, record)]) is not None

    def retain_sets(self) -> tuple[RetainSetRecord, ...]:
        """All retain sets by name."""
        with self.reading() as session:
            return bases.every_retain_set(session)

    def retain_set(self, ref: str) -> RetainSetRecord:
        """The retain set with this name, digest or abbreviation.

        Raises:
            NotFoundError, AmbiguousIdError: no such retain set, or several.
        """
        with self.reading() as session:
            return bases.load_retain_set(session, ref)

    def add_basis(self, record: BasisRecord, entry: Draft) -> bool:
        """Adds the basis of a protected space; False where it is here."""
        return self._journal.change(entry, lambda session: [bases.insert_basis(session, record)]) is not None

    def bases_of_spaces(self) -> tuple[BasisRecord, ...]:
        """All bases of protected spaces by digest."""
        with self.reading() as session:
            return bases.every_basis(session)

    def basis(self, ref: str) -> BasisRecord:
        """The basis with this digest or abbreviation.

        Raises:
            NotFoundError, AmbiguousIdError: no such basis, or several.
        """
        with self.reading() as session:
            return bases.load_basis(session, ref)
