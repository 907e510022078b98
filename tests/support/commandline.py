"""`rasura …` typed in a folder, in this process: what it prints, and the code it ends with."""

import contextlib
import io
import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rasura.cli import main

__all__ = ["Run", "rasura"]


@dataclass(frozen=True, slots=True)
class Run:
    """One command's end."""

    code: int
    out: str
    err: str

    @property
    def envelope(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        found = json.loads(self.out)
        assert self.out.count("\n") == 1
        assert set(found) == {"schema", "ok", "command", "version", "data", "error", "changed"}
        assert found["schema"] == "envelope/1"
        assert (found["error"] is None) == (found["data"] is not None)
        assert isinstance(found, dict)
        return found

    @property
    def hint(self) -> list[str]:
        """The words that the hint has somebody type after `rasura`."""
        words = shlex.split(str(self.envelope["error"]["hint"]))
        assert words[0] == "rasura", words
        return words[1:]

    @property
    def data(self) -> dict[str, Any]:
        """What a command that did its work says."""
        assert self.code == 0, self.out + self.err
        data = self.envelope["data"]
        assert isinstance(data, dict)
        return data


def rasura(*arguments: str | Path, cwd: Path, variables: Mapping[str, str] | None = None) -> Run:
    """Run `rasura.cli.main` with these arguments in a folder."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    argv, folder, environment = sys.argv, Path.cwd(), dict(os.environ)
    sys.argv = ["rasura", *map(str, arguments)]
    os.environ.update(variables or {})
    os.chdir(cwd)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = _run()
    finally:
        os.chdir(folder)
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environment)
    return Run(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))


def _run() -> int:
    with pytest.raises(SystemExit) as end:
        main()
    assert isinstance(end.value.code, int)
    return end.value.code
