"""Registries for the tests, on SQLite and on PostgreSQL, and records to put into them.

A conftest.py that wants the fixtures imports them:

    from support.registries.postgres import postgres_cluster, postgres_url  # noqa: F401
    from support.registries.registry_fixtures import folder, full, kind, made, place, registry, templates  # noqa: F401
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import pytest
from support.full import some
from support.registries.postgres import Cluster

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import JsonValue
from rasura.patches.types import Digest, KeyId, ParamName, PatchId
from rasura.registry._storage.records.base_records import BaseParameter, BaseRecord, BasisRecord, RetainSetRecord
from rasura.registry._storage.records.choices import StackRecord
from rasura.registry._storage.records.records import Draft, EvaluationRecord, HostRecord, KeyRecord, PatchRecord
from rasura.registry.registry import NewPatch, Registry

_T = TypeVar("_T")
HOST = "00000000-0000-4000-8000-000000000001"
EPOCH = datetime(2026, 1, 31, 12, 0, 0, 250, tzinfo=UTC)


@dataclass(slots=True)
class Clock:
    """A clock that moves a second at each look, and that a test can set."""

    time: datetime = field(default=EPOCH)

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


@dataclass(frozen=True, slots=True)
class Place:
    """Where a test's registry is, and how to get at its database without asking it."""

    location: str
    folder: Path
    """The `.rasura` folder, or the one of blobs and keys beside a PostgreSQL database."""
    url: str | None

    def create(self, clock: Clock | None = None) -> Registry:
        return Registry.create(self.location, actor="tester", now=clock or Clock(), busy_seconds=20)

    def open(self) -> Registry:
        return Registry.open(self.location, now=Clock(EPOCH + timedelta(days=1)), busy_seconds=20)


@dataclass(slots=True)
class Templates:
    """One new registry a database kind, and one with a bit of everything, copied for each test.

    A copy costs a tenth of a migration; of one with a bit of everything, a tenth of a dozen signed entries.
    """

    folder: Path
    names: dict[bool, str] = field(default_factory=dict)

    def sqlite(self, folder: Path, *, full: bool = False) -> Place:
        template = self.folder / f"sqlite-{full}"
        if not template.exists():
            Registry.create(template, actor="tester", now=Clock()).close()
            _prepare(_on_sqlite(template), full=full)
        shutil.copytree(template / ".rasura", folder / ".rasura")
        return _on_sqlite(folder)

    def postgresql(self, folder: Path, cluster: Cluster, *, full: bool = False) -> Place:
        template = self.folder / f"postgresql-{full}"
        if full not in self.names:
            name = self.names[full] = cluster.create_database()
            Registry.create(cluster.url(name), home=template, actor="tester", now=Clock()).close()
            _prepare(_on_postgresql(cluster.url(name), template), full=full)
        shutil.copytree(template, folder / "home")
        return _on_postgresql(cluster.url(cluster.create_database(self.names[full])), folder / "home")


def _prepare(place: Place, *, full: bool) -> None:
    if full:
        with place.open() as registry:
            filled(registry)


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return Templates(tmp_path_factory.mktemp("templates"))


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """Of database."""
    return str(request.param)


def on_both(values: Iterable[_T]) -> list[tuple[str, _T]]:
    """For `parametrize(("kind", …), …)`: every value on SQLite, every fourth on PostgreSQL, with FULL=1 all on both.

    For what asks the program alone: that tables and triggers do the same there is tested with all of each.
    """
    listed = list(values)
    return [
        *(("sqlite", value) for value in listed),
        *(("postgresql", value) for value in some(listed[::4], listed)),
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose path is full of characters that mean something in URLs and formats."""
    folder = tmp_path / "a b%20c ?#%s"
    folder.mkdir()
    return folder


@pytest.fixture
def place(request: pytest.FixtureRequest, kind: str, folder: Path) -> Place:
    """A place without a registry."""
    if kind == "sqlite":
        return _on_sqlite(folder)
    return _on_postgresql(request.getfixturevalue("postgres_url"), folder / "home")


@pytest.fixture
def made(request: pytest.FixtureRequest, kind: str, folder: Path, templates: Templates) -> Place:
    """A place with a new registry; its log has one entry."""
    if kind == "sqlite":
        return templates.sqlite(folder)
    return templates.postgresql(folder, request.getfixturevalue("postgres_cluster"))


@pytest.fixture
def full(request: pytest.FixtureRequest, kind: str, folder: Path, templates: Templates) -> Place:
    """A place with a registry that holds a bit of everything (`filled`), and no open connection."""
    if kind == "sqlite":
        return templates.sqlite(folder, full=True)
    return templates.postgresql(folder, request.getfixturevalue("postgres_cluster"), full=True)


@pytest.fixture
def registry(made: Place) -> Iterator[Registry]:
    """A new registry, open."""
    with made.open() as opened:
        yield opened


def _on_sqlite(folder: Path) -> Place:
    return Place(str(folder), folder / ".rasura", None)


def _on_postgresql(url: str, folder: Path) -> Place:
    return Place(f"{url}&blobs={quote(str(folder))}", folder, url)


def draft(action: str = "test.do", outcome: str = "success", **rest: object) -> Draft:
    return Draft("alice", "because", action, outcome, **rest)  # type: ignore[arg-type]


def digest(text: object) -> Digest:
    return Digest(hashlib.sha256(str(text).encode()).hexdigest())


def key(name: str = "alice", **rest: object) -> KeyRecord:
    fields = {"pem": f"pem of {name}", "owned": True, "trusted": True, "revoked_at": None, "added_at": EPOCH, **rest}
    return KeyRecord(KeyId(digest(f"key {name}")), name, **fields)  # type: ignore[arg-type]


def parameter(name: str) -> BaseParameter:
    return BaseParameter(ParamName(name), "F32", (320, 768), digest(name), {"F16": digest(name + "16")})


def base(name: str = "sd14") -> BaseRecord:
    parameters = (parameter("unet.a.to_k.weight"), parameter("unet.a.to_v.weight"))
    return BaseRecord(digest(name), name, "org/" + name, digest("text"), digest("tokens"), parameters, EPOCH)


def retain_set(name: str = "coco") -> RetainSetRecord:
    return RetainSetRecord(digest(name), name, 1000)


def basis(name: str = "basis") -> BasisRecord:
    return BasisRecord(digest(name), 768, 700, "tail < 1e-6")


def files_of(concept: str) -> dict[str, bytes]:
    return {"manifest.json": f'{{"concept":"{concept}"}}'.encode(), "model.sig": b"signature of " + concept.encode()}


def patch(concept: str = "van gogh", **rest: object) -> PatchRecord:
    files = files_of(concept)
    fields = {
        "concepts": (concept, concept + " style"),
        "anchor": "art",
        "method": "nullspace",
        "base": digest("sd14"),
        "basis": None,
        "retain_set": None,
        "key_id": None,
        "files": {name: Digest(hashlib.sha256(data).hexdigest()) for name, data in files.items()},
        "size": sum(map(len, files.values())),
        "added_at": EPOCH,
        "source": "made here",
        **rest,
    }
    return PatchRecord(PatchId(digest(f"patch {concept}")), **fields)  # type: ignore[arg-type]


def host(*applied: PatchRecord, location: str = "/models/a", strength: int = 16, **rest: object) -> HostRecord:
    fields = {"host_id": HOST, "base": digest("sd14"), "state": digest([p.patch_id for p in applied]), **rest}
    stack = {p.patch_id: strength for p in applied}
    return HostRecord(location=location, applied=stack, updated_at=EPOCH, **fields)  # type: ignore[arg-type]


def stack(name: str, *patches: PatchRecord, strength: int = 16, **rest: object) -> StackRecord:
    fields = {"base": digest("sd14"), "created_at": EPOCH, "updated_at": EPOCH, **rest}
    return StackRecord(name, patches={p.patch_id: strength for p in patches}, **fields)  # type: ignore[arg-type]


def report_of(*patches: PatchRecord, **rest: JsonValue) -> bytes:
    """A report that the registry takes; `rest` replaces fields, and None leaves them out."""
    fields: dict[str, JsonValue] = {
        "format": "rasura-evaluation/1",
        "base": digest("sd14"),
        "patches": {p.patch_id: 16 for p in patches},
        "judge": "a classifier",
        "summary": {"forget": "0.979", "retain": "1.000", "held_out": "0.979", "harmonic": "0.986"},
        "body": {"scores": [{"group": "forget", "n": 48, "accuracy": "0.021"}]},
        **rest,
    }
    return canonical_json.dumps({name: value for name, value in fields.items() if value is not None})


def evaluation(*patches: PatchRecord, **rest: object) -> EvaluationRecord:
    fields = {
        "digest": hashlib.sha256(report_of(*patches)).hexdigest(),
        "base": digest("sd14"),
        "patches": {p.patch_id: 16 for p in patches},
        "judge": "a classifier",
        "summary": {"forget": "0.979", "retain": "1.000", "held_out": "0.979", "harmonic": "0.986"},
        "added_at": EPOCH,
        **rest,
    }
    return EvaluationRecord(**fields)  # type: ignore[arg-type]


def add_patch(registry: Registry, concept: str = "van gogh") -> PatchRecord:
    record = patch(concept)
    assert registry.add_patch(record, files_of(concept), draft("patch.add"))
    return record


def filled(registry: Registry) -> PatchRecord:
    """A bit of everything: key, base, retain set, basis, two patches, an evaluation and a host with one of them."""
    registry.add_key(key(), draft("key.add"))
    registry.add_base(base(), draft("base.add"))
    first = patch("van gogh", basis=basis().digest, retain_set=retain_set().digest)
    new = NewPatch(first, files_of("van gogh"), draft("patch.add"), basis(), retain_set())
    assert registry.add_patches([new]) == (True,)
    add_patch(registry, "mickey mouse")
    registry.add_evaluation(evaluation(first), report_of(first), draft("evaluation.add"))
    begun = registry.note(draft("stack.apply", "begun", host=HOST, patches=(first.patch_id,)))
    registry.set_host(host(first), draft("stack.apply", "done", patches=(first.patch_id,), closes=begun.index))
    return first
