"""A push that is killed or stopped at any instant: never half a model, and the rerun completes."""

import contextlib
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hub.desk import (
    INITIAL,
    REPO,
    Desk,
    desk,
    ended,
    files_of,
    large,
    made_by_apply,
    pushed_files,
    two_models,
    wait_for,
    write_recipe,
)
from tests.hub.faults import Fault, Meanwhile, Stall
from tests.hub.messages import Response
from tests.hub.quick import quick

__all__ = ["desk", "quick"]

MOST = 25
"""Runs within which one must get through."""

CALLS = ("pwrite64", "fdatasync", "unlink", "fsync")
"""What a run does to its work folder."""


class Afterwards(Fault):
    """Something happens after a request was done, and before it is answered."""

    def __init__(self, action: Callable[[], object]):
        self.action = action

    def after(self, response: Response) -> Response:
        self.action()
        return response


@contextlib.contextmanager
def watched(desk: Desk) -> Iterator[set[frozenset[str]]]:
    """Every set of files that the branch shows meanwhile."""
    seen, over = set[frozenset[str]](), threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            if REPO in desk.hub.registry.repos:
                seen.add(frozenset(desk.hub.repo(REPO).resolve("main").tree))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def killed_until_done(
    desk: Desk, arguments: tuple[str | Path, ...], random_: random.Random, least: int, most: int
) -> int:
    """Runs a command, killed while one of its requests is on the way, until it gets through.

    Args:
        least: how many requests go well at least before one of them is the last.
        most: how many go well at most.

    Returns:
        How often it was killed.
    """
    for kills in range(MOST):
        after, late = random_.randint(least, most), random_.random() < 0.5
        desk.hub.faults.clear()
        with desk.start(*arguments) as process:
            fault = Afterwards(process.kill) if late else Meanwhile(process.kill)
            desk.hub.faults.add(fault, skip=after, times=None)
            done = ended(process)
        if done.code == 0:
            return kills
        assert done.code == -signal.SIGKILL, done.err
    raise AssertionError("it never gets through")


def killing(call: str, when: int) -> tuple[str, ...]:
    """A wrapper that kills a run at its so many-th system call of a kind."""
    strace = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}")
    return (*strace, "-e", f"inject={call}:signal=SIGKILL:when={when}")


@pytest.mark.parametrize("seed", [1, 2])
def test_push_that_is_killed_again_and_again_completes(seed: int, desk: Desk) -> None:
    folder = desk.model()
    want = files_of(folder)
    with watched(desk) as seen:
        kills = killed_until_done(desk, ("push", folder, REPO), random.Random(seed), 5, 16)
    assert kills > 1
    desk.assert_holds(folder)
    assert seen <= {frozenset(INITIAL), frozenset(INITIAL | want.keys())}
    assert len(desk.titles()) == 2
    # Of files that were on their way, two at a time, nothing is kept.
    assert desk.uploaded() <= large(want) + kills * 2 * max(map(len, want.values()))


@pytest.mark.parametrize("seed", [1, 2])
def test_run_that_keeps_nothing_and_is_killed_again_and_again_completes(
    seed: int, desk: Desk
) -> None:
    two_models(desk)
    recipe = write_recipe(desk)
    want = made_by_apply(desk)
    arguments = ("apply", recipe, "--push", REPO, "--push-only")
    with watched(desk) as seen:
        kills = killed_until_done(desk, arguments, random.Random(seed), 6, 14)
    assert kills > 1
    assert pushed_files(desk) == want
    assert seen <= {frozenset(INITIAL), frozenset(INITIAL | want.keys())}
    assert len(desk.titles()) == 2
    assert desk.uploaded() <= large(want) + kills * max(map(len, want.values()))
    assert sorted(path.name for path in desk.folder.iterdir()) == ["a", "b", "recipe.yaml", "want"]


def test_run_that_keeps_nothing_can_be_killed_at_any_change_of_its_folder(desk: Desk) -> None:
    two_models(desk)
    recipe = write_recipe(desk)
    want = made_by_apply(desk)
    arguments = ("apply", recipe, "--push", REPO, "--push-only", "--threads", "1")
    kills = 0
    with watched(desk) as seen:
        while desk.run(*arguments, wrapper=killing(CALLS[kills % 4], 3 + 2 * kills)).code:
            kills += 1
            assert kills < MOST
    assert kills > 4
    assert pushed_files(desk) == want
    assert seen <= {frozenset(INITIAL), frozenset(INITIAL | want.keys())}
    assert sorted(path.name for path in desk.folder.iterdir()) == ["a", "b", "recipe.yaml", "want"]


ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.mark.parametrize(
    ("kind", "target", "number"),
    [
        ("push", "/upload/", signal.SIGINT),
        ("push", "/commit/", signal.SIGTERM),
        ("apply --push", "/upload/", signal.SIGHUP),
        ("apply --push", "/commit/", signal.SIGINT),
        ("apply --push-only", "/upload/", signal.SIGTERM),
        ("apply --push-only", "/upload/", signal.SIGINT),
        ("apply --push-only", "/commit/", signal.SIGHUP),
    ],
)
def test_signal_ends_it_whatever_the_network_does(
    kind: str, target: str, number: signal.Signals, desk: Desk
) -> None:
    two_models(desk)
    command = arguments_of(desk, kind)
    rule = desk.hub.faults.add(Stall(60), target, times=None)
    with desk.start(*command) as process:
        wait_for(lambda: rule.hits)
        process.send_signal(number)
        done = ended(process, timeout=8)
    assert (done.code, done.out) == (ENDS[number], "")
    desk.hub.faults.clear()
    assert len(desk.titles()) == (2 if target == "/commit/" else 1)
    if kind == "apply --push":
        assert "is complete in" in done.err
        assert "the same command sends it" in done.err
    if kind == "apply --push-only":
        assert "goes on from there" in done.err
    if kind == "push":
        assert "the same command goes on" in done.err
    again = desk.call(*command)
    assert again.code == 0, again.err
    assert ("had finished it already" in again.err) == (kind == "apply --push")
    assert len(desk.titles()) == 2


def arguments_of(desk: Desk, kind: str) -> tuple[str | Path, ...]:
    if kind == "push":
        return ("push", desk.folder / "a", REPO)
    only = ["--push-only"] if kind.endswith("only") else []
    return ("apply", write_recipe(desk), "--push", REPO, *only)
