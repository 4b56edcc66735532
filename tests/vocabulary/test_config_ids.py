"""Ids in configs: they mean the same tokens after vocabularies were joined."""

from typing import Any

import pytest

from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.vocabulary import Vocabulary, config_changes, join
from tests.vocabulary.makers import (
    END,
    FOREST,
    PAD,
    SEA,
    bpe,
    files_of,
    vocabulary_of,
    with_added,
)

STOP, TOOL = "<stop>", "<tool>"


def models() -> dict[str, Vocabulary]:
    """One whose control tokens are 0, 300 to 302, and one that has some of them at 300, 301."""
    base = with_added(bpe(SEA), PAD, STOP, TOOL)
    tuned = with_added(bpe(FOREST), STOP, TOOL)
    return {
        "base": vocabulary_of(files_of(base, eos_token=END)),
        "tuned": vocabulary_of(files_of(tuned, eos_token=STOP, bos_token=END)),
    }


CONFIG: dict[str, Any] = {
    "vocab_size": 999,
    "hidden_size": 301,
    "bos_token_id": None,
    "eos_token_id": [0, 301],
    "pad_token_id": 300,
    "image_token_index": 302,
    "decoder_start_token_id": -1,
    "suppress_tokens": [301, 302],
    "bad_words_ids": [[302], [301, 302]],
}


def test_ids_stay_where_the_result_has_the_models_own_tokenizer() -> None:
    vocabularies = models()
    for donor in ("base", None):
        joined = join(vocabularies, base="base", donor=donor, pad_to_multiple_of=64)
        assert config_changes(CONFIG, "base", vocabularies, joined) == {
            "vocab_size": joined.vocabulary.rows
        }
    assert config_changes({"eos_token_id": 0}, "base", vocabularies, joined) == {}


def test_ids_become_those_of_the_same_tokens_and_roles_those_of_the_tokenizer() -> None:
    vocabularies = models()
    joined = join(vocabularies, base="base", donor="tuned")
    assert joined.vocabulary.rows == 302
    assert config_changes(CONFIG, "base", vocabularies, joined) == {
        "vocab_size": 302,
        "bos_token_id": 0,
        "eos_token_id": 300,
        "pad_token_id": None,
        "image_token_index": 301,
        "suppress_tokens": [300, 301],
        "bad_words_ids": [[301], [300, 301]],
    }


def test_ids_of_another_model_than_the_first_are_translated_to_a_union() -> None:
    vocabularies = models()
    joined = join(vocabularies, base="base")
    changes = config_changes(
        {"tool_token_id": 301, "pad_token_id": 0}, "tuned", vocabularies, joined
    )
    assert changes == {"tool_token_id": 302}


@pytest.mark.parametrize(
    ("config", "problem", "fix"),
    [
        (
            {"image_token_id": 300},
            f"config: 'image_token_id' is 300, token '{PAD}' there, and the result has it not",
            "remove it from the config, or list the token in the recipe's tokenizer",
        ),
        (
            {"image_token_id": 310},
            "config: 'image_token_id' is 310, no token there, and the result has it not",
            "remove it from the config, or list the token in the recipe's tokenizer",
        ),
        (
            {"forced_decoder_ids": [[1, 300]]},
            "config: 'forced_decoder_ids' has token ids, and they change",
            "remove 'forced_decoder_ids' from the config",
        ),
    ],
)
def test_ids_that_mean_nothing_in_the_result_are_refused(
    config: dict[str, Any], problem: str, fix: str
) -> None:
    vocabularies = models()
    with pytest.raises(CheckpointError) as caught:
        config_changes(config, "base", vocabularies, join(vocabularies, donor="tuned"))
    (found,) = caught.value.problems
    assert (found.where, found.what, found.fix) == ("base", problem, fix)
