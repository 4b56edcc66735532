"""No model that transformers has just written is accused, and every one's config is compared."""

from pathlib import Path

import pytest

from tensorsurgeon.verify import verify
from tests.families.conftest import Base, base  # noqa: F401 - a fixture
from tests.families.folders import with_config
from tests.families.models import (
    BART,
    BERT,
    DECODERS,
    GEMMA4,
    INFERRED,
    JAMBA,
    MINILM,
    MODERNBERT,
    PATTERNED,
    T5,
    Family,
)

TWO_TOWERS = (BART, T5)
FAMILIES = tuple(
    {
        family.name: family
        for family in (
            *DECODERS,
            *INFERRED,
            *PATTERNED,
            BERT,
            MINILM,
            GEMMA4,
            JAMBA,
            MODERNBERT,
            *TWO_TOWERS,
        )
    }.values()
)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_sound_model_has_no_problem(family: Family, base: Base) -> None:  # noqa: F811
    report = verify(base(family), threads=1)
    assert report.problems == ()
    # Two towers of one depth: nothing says which one is meant.
    assert len(report.unchecked) == (3 if family in TWO_TOWERS else 1)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in TWO_TOWERS], ids=str)
@pytest.mark.parametrize("kind", ["depth", "width", "vocabulary"])
def test_config_that_disagrees_is_found(
    family: Family,
    kind: str,
    base: Base,  # noqa: F811
    tmp_path: Path,
) -> None:
    keys = {
        "depth": ("num_hidden_layers", "n_layer", "num_layers"),
        "width": ("hidden_size", "n_embd"),
        "vocabulary": ("vocab_size",),
    }[kind]
    folder = tmp_path / "changed"
    old = with_config(base(family), folder, without=keys)
    assert old
    with_config(folder, tmp_path / "other", **{key: value + 1 for key, value in old.items()})
    assert verify(tmp_path / "other", threads=1).problems
