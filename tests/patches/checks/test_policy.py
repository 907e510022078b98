"""Policies: the TOML file says exactly what the object holds, and combining never allows more."""

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasura.patches.checks.policy import DEFAULT_POLICY, MAX_POLICY_BYTES, Policy, combine_policies, list_limit_names
from rasura.patches.checks.retention import read_retentions
from rasura.patches.errors import InputError

LIMITS = st.floats(min_value=0, allow_nan=False)
SHARES = st.floats(min_value=0, max_value=1)
DEMANDS = st.builds(
    lambda forget, retain: {"evaluated": True, "min_forget": forget, "min_retain": retain}, SHARES, SHARES
)
_SPANS = st.sampled_from(["hold", "to 3 days", "from 2 weeks", "1 day to 2 days", "5 days to 9 weeks"])
CLASSES = st.dictionaries(st.sampled_from(["court", "default", "takedown"]), _SPANS).map(read_retentions)
AGES = st.none() | st.integers(1, 10_000)
POLICIES = st.builds(
    lambda limits, separable, demand, age, classes: Policy(
        **limits, separable=separable, **demand, checkpoint_age=age, retention=classes
    ),
    st.fixed_dictionaries(dict.fromkeys(list_limit_names(), LIMITS)),
    st.booleans(),
    st.just({}) | DEMANDS,
    AGES,
    CLASSES,
)


@given(POLICIES)
def test_the_file_says_what_the_policy_holds(policy: Policy) -> None:
    assert Policy.parse(policy.to_toml().encode()) == policy
    assert Policy.parse(policy.to_toml(whole=True).encode()) == policy


def test_older_policies_keep_their_bytes_and_people_see_all() -> None:
    assert "alike" not in DEFAULT_POLICY.to_toml()
    assert "moved" not in DEFAULT_POLICY.to_toml()
    assert "[evaluation]" not in DEFAULT_POLICY.to_toml()
    assert "alike = 0.32\nmoved = 0.3" in DEFAULT_POLICY.to_toml(whole=True)
    assert "required = false" in DEFAULT_POLICY.to_toml(whole=True)


def test_what_a_file_leaves_out_has_its_default() -> None:
    assert Policy.parse(b"[limits]\npair = 0.01\n") == Policy(pair=0.01)
    assert Policy.parse(b"") == DEFAULT_POLICY


@given(st.lists(POLICIES, min_size=1, max_size=4))
def test_together_they_allow_no_more_than_each(policies: list[Policy]) -> None:
    both, least = combine_policies(*policies), {"kept", "moved"}
    for policy in policies:
        assert all(getattr(both, name) <= getattr(policy, name) for name in list_limit_names() if name not in least)
        assert all(getattr(both, name) >= getattr(policy, name) for name in least)
        assert both.separable >= policy.separable
        assert both.evaluated >= policy.evaluated
        assert both.min_forget >= policy.min_forget
        assert both.min_retain >= policy.min_retain
        if policy.checkpoint_age is not None:
            assert both.checkpoint_age is not None
            assert both.checkpoint_age <= policy.checkpoint_age
        kept = {each.name: each for each in both.retention}
        for each in policy.retention:
            mine = kept[each.name]
            assert mine.held >= each.held
            assert mine.held or (mine.least or timedelta(0)) >= (each.least or timedelta(0))
    assert combine_policies(both, *policies) == both


@given(POLICIES, POLICIES, POLICIES)
def test_combining_has_no_order(a: Policy, b: Policy, c: Policy) -> None:
    assert (
        combine_policies(a, combine_policies(b, c))
        == combine_policies(combine_policies(c, a), b)
        == combine_policies(a, b, c)
    )


def test_nothing_is_no_policy() -> None:
    with pytest.raises(InputError, match="got none"):
        combine_policies()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[limits]\npairs = 1\n", "limits named own"),
        (b'[retention]\ncourt = "for ever"\n', "retention: court: expected"),
        (b'[retention]\ncourt = "3 weeks to 1 day"\n', "a span that ends after it begins"),
        (b'[retention]\n"A b" = "hold"\n', "a short name in small letters"),
        (b"[limit]\n", "tables named limits"),
        (b"[require]\nsigned = true\n", "requirements named separable"),
        (b"[evaluation]\nmax_forget = 1\n", "demands named required"),
        (b"[evaluation]\nrequired = 1\n", "required: expected true or false"),
        (b"[evaluation]\nrequired = true\nmin_forget = 1.5\n", "min_forget: expected a share"),
        (b"[evaluation]\nmin_forget = 0.9\n", "expected required = true"),
        (b"limits = 3\n", "expected a table"),
        (b"[log]\nage = 3\n", "demands named checkpoint_age"),
        (b"[log]\ncheckpoint_age = 3\n", 'expected "7 days"'),
        (b'[log]\ncheckpoint_age = "0 days"\n', 'expected "7 days"'),
        (b'[log]\ncheckpoint_age = "9999 weeks"\n', "hours"),
        (b'[limits]\npair = "0.1"\n', "pair: expected a number"),
        (b"[limits]\npair = nan\n", "pair: expected a number"),
        (b"[limits]\npair = -1\n", "pair: expected a number"),
        (b"[limits]\npair = true\n", "pair: expected a number"),
        (b"[require]\nseparable = 1\n", "separable: expected true or false"),
        (b"\xff", "expected TOML"),
        (b"[limits\n", "expected TOML"),
        (b"#" * (MAX_POLICY_BYTES + 1), "at most"),
        (b"a = " + b"[" * 9000, "expected TOML"),
    ],
)
def test_anything_else_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Policy.parse(data)


def test_no_limit_is_spelled_inf() -> None:
    assert Policy.parse(b"[limits]\nresidual = inf\n").residual == math.inf
