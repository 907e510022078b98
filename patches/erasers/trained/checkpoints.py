"""What a long training leaves behind so that it can go on after a kill: one safetensors file and one JSON file.

    DIGEST-UPDATES.safetensors   parameters, optimiser state and running statistics after so many updates
    DIGEST.json                  which file is the newest, its SHA-256, and whether the training is over

DIGEST names everything that decides the run (`run_digest`), so that a state never serves another run. The JSON file is
replaced in one step after the tensors are on disk: whenever the process dies, the state of one update is there, whole.
A state that is damaged counts as none. Finished states stay, so that a request of several concepts goes on behind the
concepts that are done; whoever named the folder removes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from rasura.patches._io import canonical_json
from rasura.patches._io.byte_ranges import replace_file, sync_folder
from rasura.patches._io.files import read_regular
from rasura.patches._io.json_fields import Fields, JsonValue
from rasura.patches._io.safetensors_file import CHECKPOINT_LIMITS, decode, encode
from rasura.patches._io.sha256 import digest_of
from rasura.patches._io.tensor_bytes import digest_tensor, digest_tensor_set, dtype_name
from rasura.patches.errors import FormatError, HostWriteError, NotFoundError
from rasura.patches.types import Digest

FORMAT: Final = "rasura-training/1"
_LIMIT: Final = 1 << 16  # bytes of the JSON file
_SHOWN: Final = 24  # digits of a digest in a file's name


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A training after some updates.

    Attributes:
        updates: how many.
        done: whether it is over.
        tensors: everything that the next update depends on, on the CPU.
    """

    updates: int
    done: bool
    tensors: Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where the states of one run lie.

    Attributes:
        folder: made when the first state is written.
        digest: names the run, see `run_digest`.
        every: a state is written after each so many updates, and at the end.
    """

    folder: Path
    digest: Digest
    every: int = 25

    def save(self, state: State) -> None:
        """Write a state; the one before it stays until this one is on disk.

        Raises:
            HostWriteError: disk full or not writable.
        """
        data = encode(dict(state.tensors))
        name = f"{self._stem}-{state.updates}.safetensors"
        document: dict[str, JsonValue] = {
            "format": FORMAT,
            "run": self.digest,
            "updates": state.updates,
            "done": state.done,
            "file": name,
            "sha256": digest_of(data),
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(self.folder / name, [data])
            sync_folder(self.folder)
            replace_file(self._index, [canonical_json.dumps(document)])
            sync_folder(self.folder)
            for old in self.folder.glob(f"{self._stem}-*.safetensors"):
                if old.name != name:
                    old.unlink(missing_ok=True)
        except OSError as error:
            raise HostWriteError(f"{self.folder}: the training's state cannot be written: {error.strerror}") from error

    def load(self) -> State | None:
        """The newest state, or None where there is none that is whole."""
        try:
            text = read_regular(self._index, _LIMIT)
            fields = Fields.of(canonical_json.loads(text, what=self._index.name, limit=_LIMIT), self._index.name)
            if (fields.text("format"), fields.text("run")) != (FORMAT, self.digest):
                return None
            updates, done = fields.integer("updates", 0, canonical_json.MAX_INTEGER), fields.flag("done")
            name, sha256 = fields.text("file", r"[0-9a-f]+-[0-9]+\.safetensors"), fields.digest("sha256")
            data = read_regular(self.folder / name, CHECKPOINT_LIMITS.file_bytes)
            if digest_of(data) != sha256:
                return None
            kinds = frozenset({"F32", "F64"})
            return State(updates, done, decode(data, what=name, limits=CHECKPOINT_LIMITS, dtypes=kinds))
        except (NotFoundError, FormatError):
            return None

    @property
    def _stem(self) -> str:
        return self.digest[:_SHOWN]

    @property
    def _index(self) -> Path:
        return self.folder / f"{self._stem}.json"


def run_digest(settings: Mapping[str, JsonValue], tensors: Mapping[str, torch.Tensor]) -> Digest:
    """SHA-256 of everything that decides a run: choices in words, tensors by name, shape and bytes.

    Args:
        settings: JSON values without floats.
        tensors: on any device.
    """
    listed = [(name, dtype_name(t.dtype), tuple(t.shape), digest_tensor(t)) for name, t in tensors.items()]
    document: dict[str, JsonValue] = {"settings": dict(settings), "tensors": digest_tensor_set(listed)}
    return digest_of(canonical_json.dumps(document))
