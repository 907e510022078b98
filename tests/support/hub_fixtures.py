"""The fixture `hub`: a running Hub server, and a huggingface_hub that knows no other place on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hubserver import HubServer

VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET")


def isolate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point every cache, token and session of huggingface_hub and hf_xet below `folder`."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _xet

    places = {"HF_HOME": "", "HF_HUB_CACHE": "hub", "HF_XET_CACHE": "xet", "HF_ASSETS_CACHE": "assets"}
    places |= {"HF_TOKEN_PATH": "token", "HF_STORED_TOKENS_PATH": "stored_tokens"}
    for name, place in places.items():
        monkeypatch.setattr(constants, name, str(folder / place))
        monkeypatch.setenv(name, str(folder / place))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # hf_xet reads its folders once, when the session of the process begins.
    monkeypatch.setattr(_xet, "_GLOBAL_XET_HOLDER", _xet.XetSessionHolder())
    monkeypatch.setattr(_xet, "XET_CONNECTION_INFO_CACHE", {})


@pytest.fixture(params=["lfs", "xet"])
def hub(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub whose client and server speak Git LFS, then one where both speak Xet."""
    from huggingface_hub import close_session, constants

    isolate(tmp_path / "hf", monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param == "lfs")
    (tmp_path / "hub").mkdir()
    with HubServer(tmp_path / "hub", xet=request.param == "xet") as server:
        yield server
        close_session()


@pytest.fixture
def plain_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """One Hub, for tests to which the way of storage does not matter: the server knows no Xet, the client is off."""
    from huggingface_hub import close_session, constants

    isolate(tmp_path / "hf", monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    (tmp_path / "hub").mkdir()
    with HubServer(tmp_path / "hub", xet=False) as server:
        yield server
        close_session()
