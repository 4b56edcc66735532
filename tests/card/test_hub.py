"""The card of what is made from repositories: their names, commits and licences."""

from pathlib import Path

import pytest
from huggingface_hub.utils import http_backoff

from tensorsurgeon import api
from tensorsurgeon.checkpoint.license import CARD_LIMIT
from tensorsurgeon.hub import requests
from tests.card.conftest import card_of, give_license
from tests.card.test_card import front_matter_of
from tests.cli.checkpoints import tiny_llama
from tests.cli.conftest import WriteRecipe
from tests.hub.conftest import client, hub
from tests.hub.faults import Fail
from tests.hub.loopback import LoopbackHub

__all__ = ["client", "hub"]

RECIPE = "models: {a: org/a, b: org/b@main}\nresult: {linear: {models: [a, b]}}\n"


@pytest.fixture
def path(
    hub: LoopbackHub, tmp_path: Path, recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The recipe, and two repositories under one licence."""
    monkeypatch.setattr(requests, "PAUSE", 0.01)
    monkeypatch.setitem(http_backoff.__kwdefaults__, "base_wait_time", 0.01)
    monkeypatch.setitem(http_backoff.__kwdefaults__, "max_wait_time", 0.02)
    for seed, name in enumerate("ab"):
        folder = tiny_llama(tmp_path / "folders" / name, seed=seed)
        give_license(folder, "license: apache-2.0\ntags: [x]")
        hub.add_folder(f"org/{name}", folder)
    return recipe(RECIPE)


@pytest.mark.usefixtures("client")
def test_repositories_are_base_models_under_their_license(path: Path) -> None:
    plan = api.plan(path)
    card = card_of(plan)
    assert front_matter_of(card) == {
        "library_name": "transformers",
        "base_model": ["org/a", "org/b"],
        "base_model_relation": "merge",
        "license": "apache-2.0",
        "tags": ["merge", "tensorsurgeon", "linear"],
    }
    for name, folder in plan.sources.items():
        commit = plan.repos[folder].commit
        assert f"https://huggingface.co/org/{name}/tree/{commit}" in card
        assert f"-s {name}=hf://org/{name}@{commit}" in card


@pytest.mark.usefixtures("client")
def test_license_is_known_from_the_cache_where_the_hub_is_out_of_reach(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    before = card_of(api.plan(path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert card_of(api.plan(path)) == before


@pytest.mark.usefixtures("client")
def test_card_that_cannot_be_had_names_no_license_and_stops_nothing(
    hub: LoopbackHub, path: Path
) -> None:
    hub.faults.add(Fail(500), target="/org/b/resolve/.*README", times=None)
    assert "license" not in front_matter_of(card_of(api.plan(path)))


@pytest.mark.usefixtures("client")
def test_large_card_is_not_fetched(hub: LoopbackHub, path: Path) -> None:
    hub.commit("org/a", {"README.md": "---\nlicense: mit\n---\n" + "x" * CARD_LIMIT})
    assert "license" not in front_matter_of(card_of(api.plan(path)))
    fetched = [e for e in hub.log.select() if e.target.startswith("/org/a/resolve/")]
    assert not [exchange for exchange in fetched if "README.md" in exchange.target]
