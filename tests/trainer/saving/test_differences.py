"""Resuming with another configuration names what differs."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tensorsurgeon.trainer.resume import differences

OLD = {
    "model": {"path": "./grown", "sha256": "12"},
    "steps": 100,
    "checkpoint": {"keep": 2, "every": 50},
    "groups": [{"match": "@seam", "learning_rate": 2.0}, {"match": "*"}],
    "guard": {"not_finite": "stop"},
}


def changed(**values: Any) -> dict[str, Any]:
    return {**OLD, **values}


def test_each_difference_is_named_by_its_path_with_both_values() -> None:
    groups = [{"match": "@seam", "learning_rate": 3.0}, {"match": "*"}]
    new = changed(steps=200, groups=groups, model={"path": "./grown", "sha256": "34"})
    first, second, third = map(str, differences(OLD, new))
    assert first == "groups.0.learning_rate: was 2.0 when this run began, and is now 3.0"
    assert second == 'model.sha256: was "12" when this run began, and is now "34"'
    assert third.startswith("steps: was 100 when this run began, and is now 200\n  fix: ")


def test_what_was_not_there_or_is_no_more_is_a_difference() -> None:
    new = changed(steps=None, seed=3)
    del new["guard"]
    told = "\n".join(map(str, differences(OLD, new)))
    assert 'guard: was {"not_finite": "stop"} when this run began, and is now absent' in told
    assert "seed: was absent when this run began, and is now 3" in told
    assert "steps: was 100 when this run began, and is now null" in told


def test_lists_of_other_lengths_are_one_difference() -> None:
    (problem,) = differences(OLD, changed(groups=[{"match": "*"}]))
    assert problem.where == "groups"


def test_free_paths_may_differ_and_what_is_below_them_but_no_other() -> None:
    new = changed(checkpoint={"keep": 5, "every": 10}, guard={"not_finite": "skip"})
    assert not differences(OLD, new, free={"checkpoint", "guard.not_finite"})
    (problem,) = differences(OLD, new, free={"checkpoint.keep", "guard", "check"})
    assert problem.where == "checkpoint.every"


def test_tuples_are_as_json_has_them() -> None:
    assert not differences({"betas": [0.9, 0.95]}, {"betas": (0.9, 0.95)})


TREES = st.recursive(
    st.none() | st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("xyz"), inner) | st.lists(inner, max_size=3),
)
OBJECTS = st.dictionaries(st.sampled_from("xyz"), TREES)


@given(OBJECTS, OBJECTS)
def test_there_is_a_difference_exactly_where_two_are_not_equal(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    found = differences(old, new)
    assert bool(found) == (old != new)
    assert len({problem.where for problem in found}) == len(found)
    assert not differences(old, new, free=[problem.where for problem in found])
