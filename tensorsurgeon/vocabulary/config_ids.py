"""Token ids that stand in config.json and generation_config.json, true to a joined vocabulary."""

from collections.abc import Mapping
from typing import Any

from tensorsurgeon.errors import CheckpointError, shortened
from tensorsurgeon.vocabulary.joining import Joined
from tensorsurgeon.vocabulary.values import Vocabulary

_ENDINGS = ("_token_id", "_token_ids", "_token_index")
_LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids")
"""Further keys whose values are ids, lists of them, or lists of lists."""

_MIXED = ("forced_decoder_ids", "sequence_bias")
"""Keys with ids among other numbers."""

_ROLES = {f"{role}_token_id": f"{role}_token" for role in ("bos", "eos", "pad")}


def config_changes(
    config: Mapping[str, Any], owner: str, vocabularies: Mapping[str, Vocabulary], joined: Joined
) -> dict[str, Any]:
    """What changes in a config with the vocabulary.

    `vocab_size` becomes the number of rows. Ids stay where they are right: a result that is built
    on the owner's own tokenizer keeps its ids. Otherwise the tokens that begin, end and fill a
    text are those of the tokenizer that the result has, where it has any, and each other id becomes
    that of the same token.

    Args:
        config: config.json, its part for the text model, or generation_config.json.
        owner: the model it is of.
        vocabularies: the models' vocabularies, as they were joined.
        joined: the vocabulary of the result.

    Returns:
        The new values, of keys that the config has.

    Raises:
        CheckpointError: an id of a token that the result has not, or a key whose ids cannot be
            told from other numbers.
    """
    changes: dict[str, Any] = {}
    if "vocab_size" in config:
        changes["vocab_size"] = joined.vocabulary.rows
    if owner != joined.ground:
        translate = _Translation(vocabularies[owner], joined.vocabulary, owner)
        for key, value in config.items():
            role = joined.vocabulary.roles.get(_ROLES.get(key, ""))
            if role is not None:
                changes[key] = joined.vocabulary.ids[role]
            elif key.endswith(_ENDINGS) or key in _LISTS:
                changes[key] = translate.value(key, value)
            elif key in _MIXED and value:
                what = f"config: '{key}' has token ids, and they change"
                raise CheckpointError(what, where=owner, fix=f"remove '{key}' from the config")
    return {key: value for key, value in changes.items() if value != config[key]}


class _Translation:
    """Ids of a model as ids of the result, by the tokens that have them."""

    def __init__(self, owner: Vocabulary, result: Vocabulary, name: str) -> None:
        self._tokens = {number: token for token, number in owner.ids.items()}
        self._ids, self._name = result.ids, name

    def value(self, key: str, value: Any) -> Any:
        """The value of a key of a config."""
        if isinstance(value, list):
            return [self.value(key, inner) for inner in value]
        if type(value) is not int or value < 0:  # some write -1 for none
            return value
        token = self._tokens.get(value)
        number = None if token is None else self._ids.get(token)
        if number is None and key != "pad_token_id":
            named = "no token" if token is None else f"token {shortened(repr(token))}"
            raise CheckpointError(
                f"config: '{key}' is {value}, {named} there, and the result has it not",
                where=self._name,
                fix="remove it from the config, or list the token in the recipe's tokenizer",
            )
        return number
