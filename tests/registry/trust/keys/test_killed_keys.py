"""`key new`, killed at every call that changes files: the key is there, or the next try makes it."""

from pathlib import Path

from support.commandline import rasura
from support.crashes.commands import CommandNursery, Typed


def test_a_killed_key_is_made_by_the_next_try(tmp_path: Path, command_nursery: CommandNursery) -> None:
    assert rasura("init", cwd=tmp_path).code == 0
    kills = 0
    for call in range(60):
        typed = ("key", "new", f"key{call}", "--json")
        ended = command_nursery.run(Typed(typed, str(tmp_path), call=call))
        kills += ended.killed
        again = command_nursery.run(Typed(typed, str(tmp_path)))
        assert (again.code, again.envelope["error"] and again.envelope["error"]["code"]) in {
            (0, None),
            (7, "exists"),
        }
        if not ended.killed:
            break
    listed = rasura("key", "list", "--json", cwd=tmp_path).data["keys"]
    assert {key["name"] for key in listed} == {f"key{number}" for number in range(call + 1)}
    private = {path.name.removesuffix(".signer.pem") for path in (tmp_path / ".rasura/keys").glob("*.signer.pem")}
    assert private == {key["name"] for key in listed}
    assert kills > 10
    assert rasura("audit", "verify", cwd=tmp_path).code == 0
