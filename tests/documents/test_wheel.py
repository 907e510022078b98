"""The wheel: what it holds, and that it works away from the repository."""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import rasura

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Installed:
    """A virtual environment that has the wheel and nothing of the repository."""

    bin: Path
    packages: Path
    cwd: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, cwd=self.cwd, capture_output=True, text=True, check=False, env=_environment())
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "RASURA_", "PIP_CONFIG"))}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without the network: its build backend is one of the developers' packages."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(out), str(ROOT)], capture_output=True, text=True, check=False, env=_environment()
    )
    assert done.returncode == 0, done.stderr
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "work").mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    scheme = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=scheme))
    command = [
        sys.executable,
        "-m",
        "pip",
        "-q",
        "--python",
        str(folder / "venv"),
        "install",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*command, str(wheel)], check=True, env=_environment())
    # Dependencies come from the environment of the tests, as plain paths: its .pth files, one of which leads to the
    # repository, are not read there.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(folder / "venv" / "bin", packages, folder / "work")


def test_the_wheel_puts_one_name_into_site_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"rasura", f"rasura-{rasura.__version__}.dist-info"}
    assert [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".db"))] == []


def test_the_wheel_ships_the_package_and_nothing_beside_it(wheel: Path) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    whitelist = set(settings["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"])
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name.removeprefix("rasura/") for name in archive.namelist() if name.startswith("rasura/")}
    assert {name for name in tracked if name.split("/")[0] in whitelist} <= shipped
    assert {name.split("/")[0] for name in shipped} == whitelist
    assert whitelist & {"tests", "docs", "examples", "benchmarks"} == set()


def test_the_wheel_declares_licence_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        read = {
            name.split("/", 1)[1]: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name
        }
    assert "licenses/LICENSE" in read
    assert "licenses/NOTICE" in read
    assert "rasura = rasura.cli:main" in read["entry_points.txt"]
    assert "License-Expression: Apache-2.0" in read["METADATA"]


def test_the_installed_package_is_the_one_that_runs(installed: Installed) -> None:
    command = "import rasura.registry.registry as m; print(m.__file__)"
    where = installed.run(str(installed.bin / "python"), "-c", command).stdout.strip()
    assert Path(where).is_relative_to(installed.packages)


def test_the_installed_command_makes_and_verifies_a_registry(installed: Installed) -> None:
    """The migrations are in the wheel and are found there: `init` runs them."""
    program = str(installed.bin / "rasura")
    assert "Usage: rasura" in installed.run(program, "--help").stdout
    assert rasura.__version__ in installed.run(program, "--version").stdout
    installed.run(program, "init")
    installed.run(program, "key", "new", "alice")
    verified = json.loads(installed.run(program, "audit", "verify", "--json").stdout)
    assert (verified["ok"], verified["data"]["size"]) == (True, 2)


def test_the_installed_migrations_agree_with_the_installed_tables(installed: Installed) -> None:
    script = (
        "import sqlalchemy\nfrom rasura.registry._storage.database import schema\n"
        "engine = sqlalchemy.create_engine('sqlite://')\n"
        "with engine.begin() as connection:\n"
        "    schema.upgrade(connection)\n    schema.check(connection, 'memory')\n    print(schema.find_drift(connection))\n"
    )
    assert installed.run(str(installed.bin / "python"), "-c", script).stdout.strip() == ""


def test_no_folder_named_like_ours_gets_in_the_way(installed: Installed) -> None:
    """Somebody's own `registry` and `cli.py` beside the work do not displace the program's."""
    (installed.cwd / "registry").mkdir()
    (installed.cwd / "cli.py").write_text("raise SystemExit('I am another cli')\n")
    done = installed.run(str(installed.bin / "python"), "-m", "rasura", "--version")
    assert "rasura" in done.stdout
