"""Which call of Python does what a command does; what no call does is not in the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["CALLS", "LIVE_CALLS", "Call"]


@dataclass(frozen=True, slots=True)
class Call:
    """What does in Python what a command does.

    Attributes:
        name: the call, such as `registry.apply`.
        places: what the command's arguments are called there, in order; with a `*` it takes all that follow.
        renamed: what an option is called there, where it is not its own name; "" has no place in a call.
        inner: a call whose result is the argument `request`: it gets the options that `outer` does not name.
        outer: options of the call itself, where there is an inner one.
        end: what to look at in the answer.
    """

    name: str
    places: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    inner: str = ""
    outer: frozenset[str] = frozenset()
    end: str = ""


_NOWHERE: Final = dict.fromkeys(("--model", "--out", "-o", "--output", "--all"), "")
_WRITTEN: Final = {"-o": "", "--output": ""}


CALLS: Final[Mapping[str, Call]] = {
    "init --upgrade": Call("rasura.upgrade"),
    "init": Call("rasura.init"),
    "key new": Call("registry.new_key", ("name",)),
    "key add": Call("registry.add_key", ("name",)),
    "key list": Call("registry.keys"),
    "key export": Call("registry.key", ("key",), {"-o": "", "--output": ""}, end=".pem"),
    "key trust": Call("registry.trust_key", ("file",)),
    "key revoke": Call("registry.revoke_key", ("key",), {"--yes": ""}),
    "base add": Call("registry.add_base", ("model",)),
    "case open": Call("registry.open_case", ("case",)),
    "case list": Call("registry.cases"),
    "case show": Call("registry.case", ("case",)),
    "case add": Call("registry.add_to_case", ("case",)),
    "case close": Call("registry.close_case", ("case",)),
    "case reopen": Call("registry.reopen_case", ("case",)),
    "case hold": Call("registry.hold_case", ("case",)),
    "case release": Call("registry.release_case", ("case",)),
    "case forget": Call("registry.forget_case", ("case",), {"-o": "", "--output": ""}),
    "base list": Call("registry.bases"),
    "base show": Call("registry.base", ("base",)),
    "erase": Call(
        "registry.erase",
        renamed={"--concept": "targets", "--template": "templates", "--set": "settings"},
        inner="rasura.request",
        outer=frozenset({"base", "protect", "key", "device", "work", "reason"}),
    ),
    "adopt": Call("registry.adopt", ("source",), {"--template": "templates"}),
    "takedown": Call(
        "registry.takedown",
        renamed={
            "--concept": "concepts",
            "--anchor": "anchors",
            "--also-called": "names",
            "--set": "settings",
            "--yes": "",
        },
    ),
    "withdraw": Call("registry.withdraw", ("*names",), {"--yes": ""}),
    "probe": Call("rasura.probe", ("model",), {"--json": ""}),
    "methods": Call("rasura.methods"),
    "patch list": Call("registry.patches"),
    "patch retire": Call("registry.retire", ("*ids",)),
    "patch unretire": Call("registry.unretire", ("*ids",)),
    "patch show": Call("registry.patch", ("patch",), end=".manifest"),
    "patch verify": Call("registry.patch", ("patch",)),
    "patch approve": Call("registry.approve_patches", ("*patches",)),
    "plan approve": Call("registry.approve_plan", ("plan",)),
    "trust show": Call("registry.trust_policy"),
    "trust sign": Call("registry.sign_trust_policy", ("file",), _WRITTEN),
    "trust set": Call("registry.set_trust_policy", ("file",)),
    "patch sign": Call("registry.sign_patches", ("*patches",)),
    "patch add": Call("registry.add_patches", ("*folders",)),
    "patch export": Call(
        "registry.export", ("patch",), {"-o": "folder", "--output": "folder", "--format": "", "--each": ""}
    ),
    "patch check": Call(
        "registry.check", ("*patches",), {"--stack": "patches", "--revert": "leaving", "--plot": "", "--layers": ""}
    ),
    "patch apply": Call("registry.apply", ("*ids",)),
    "patch switch": Call("registry.switch", ("stack",)),
    "patch revert": Call("registry.revert", ("*ids",), {"--all": ""}),
    "patch status": Call("registry.status"),
    "host list": Call("registry.hosts"),
    "status": Call("registry.standing"),
    "log": Call("registry.log", renamed={"--model": "", "--stack": "", "--patch": ""}),
    "undo": Call("registry.undo", renamed={"--yes": ""}),
    "patch rebase": Call("registry.rebase", ("*ids",)),
    "patch join": Call("registry.join", ("*ids",)),
    "patch retarget": Call("registry.retarget", ("patch",)),
    "patch bisect start": Call("registry.bisect_start", ("stack",)),
    "patch bisect good": Call("registry.bisect_judge('good')"),
    "patch bisect bad": Call("registry.bisect_judge('bad')"),
    "patch bisect skip": Call("registry.bisect_judge('skip')"),
    "patch bisect run": Call("registry.bisect_run"),
    "patch bisect reset": Call("registry.bisect_reset"),
    "stack create": Call("registry.create_stack", ("name", "*patches")),
    "stack add": Call("registry.add_to_stack", ("name", "*patches")),
    "stack remove": Call("registry.remove_from_stack", ("name", "*ids")),
    "stack update": Call("registry.update_stack", ("name",)),
    "stack retarget": Call("registry.retarget_stack", ("name",)),
    "stack delete": Call("registry.delete_stack", ("name",)),
    "stack list": Call("registry.stacks"),
    "stack show": Call("registry.stack", ("name",)),
    "stack lock": Call("registry.lock_stack", ("name",), {"-o": "", "--output": ""}),
    "policy show": Call("registry.policy", renamed={"-o": "", "--output": ""}),
    "policy set": Call("registry.set_policy", ("policy",)),
    "plan": Call("registry.plan", renamed={"-o": "", "--output": ""}),
    "evaluate": Call(
        "registry.evaluate",
        renamed={
            "--patch": "patches",
            "--out": "",
            **dict.fromkeys(("--attack", "--attack-steps", "--attack-tokens", "--attack-tries"), ""),
            "--min": "minimum",
            "--max": "maximum",
        },
        inner="rasura.EvaluationRequest",
        outer=frozenset({"reason"}),
    ),
    "evaluation list": Call("registry.evaluations"),
    "evaluation show": Call("registry.evaluation", ("evaluation",)),
    "doctor": Call("registry.doctor", renamed={"--model": "models"}),
    "audit log": Call("registry.log"),
    "audit show": Call("registry.entry", ("index",)),
    "audit prove": Call("registry.prove", ("index",), _WRITTEN),
    "audit checkpoint": Call("registry.checkpoint", renamed={"-o": "file", "--output": "file"}),
    "audit export": Call("registry.export_log", renamed=_WRITTEN),
    "audit rotate-key": Call("registry.rotate_log_key"),
    "audit verify": Call("registry.verify", renamed={"--checkpoint": "kept"}),
    "attest": Call("registry.attest", renamed=_WRITTEN),
    "attest --evaluation": Call("registry.attest_evaluation", ("evaluation",), _WRITTEN),
    "verify --model": Call("rasura.verify_model", ("model",)),
    "verify": Call("rasura.verify_report", ("file",)),
    "report": Call("registry.report", renamed={"-o": "file", "--output": "file", "--pdf": ""}),
    "audit anchor add": Call("registry.add_anchor"),
    "audit anchor list": Call("registry.anchors"),
    "audit anchor verify": Call("registry.verify_anchors"),
    "audit witness": Call("registry.witness", ("checkpoint",), _WRITTEN),
    "gc": Call("registry.collect_garbage", renamed={"--older-than": "hours"}),
    "bundle make": Call("registry.make_bundle", ("*ids",), {"-o": "", "--output": ""}),
    "bundle show": Call("registry.bundle", ("file",)),
    "bundle add": Call("registry.add_bundle", ("file",)),
    "push": Call("registry.push", ("*ids", "repo"), {"--license": "licence"}),
    "pull": Call("registry.pull", ("reference",)),
}
"""By the words of the command, without `rasura`. The longest that fits counts."""


LIVE_CALLS: Final[Mapping[str, Call]] = {
    **CALLS,
    "patch apply": Call("model.apply", ("*ids",), _NOWHERE),
    "patch switch": Call("model.switch", ("goal",), {**_NOWHERE, "--stack": "goal"}),
    "patch revert": Call("model.revert", ("*ids",), _NOWHERE),
    "patch status": Call("model.status", (), _NOWHERE),
    "plan": Call("model.plan", ("goal",), {**_NOWHERE, "--stack": "goal"}),
}
"""The same for whoever holds a live model: what a command does to a model, the handle does to its own."""
