"""What stands beside tokenizer.json: further added tokens, and tokens with a part to play.

tokenizer_config.json, special_tokens_map.json and added_tokens.json, with the precedence that
transformers gives them: where the first lists added tokens, the other two do not count.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tensorsurgeon.errors import CheckpointError, shortened
from tensorsurgeon.vocabulary.tokenizer_json import (
    SAVE_AGAIN,
    Declared,
    parse_file,
    read_declared,
    read_ids,
)
from tensorsurgeon.vocabulary.values import AddedToken

CONFIG = "tokenizer_config.json"
SPECIAL = "special_tokens_map.json"
ADDED = "added_tokens.json"

_LISTS = ("additional_special_tokens", "extra_special_tokens")
"""Keys whose value lists further control tokens, or names them."""

Listed = list[str] | dict[str, str]

_DIGITS = 20
"""More digits than any id has."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the files beside tokenizer.json say.

    Attributes:
        config: tokenizer_config.json, with what special_tokens_map.json says where that counts,
            and each token in it as its string.
        declared: added tokens, in the order of their ids.
        roles: tokens by the key that names them, as `eos_token`.
        others: control tokens without a part to play, each after the key that lists it.
        places: the file that each key of `config` is of.
    """

    config: Mapping[str, Any]
    declared: tuple[Declared, ...]
    roles: Mapping[str, str]
    others: tuple[tuple[str, str], ...]
    places: Mapping[str, str]

    def check(self, ids: Mapping[str, int]) -> None:
        """See that each token that is named is one.

        Raises:
            CheckpointError: it is not; transformers would give it an id that no file tells.
        """
        for key, content in (*self.roles.items(), *self.others):
            if content not in ids:
                what = f"'{key}' has {shortened(repr(content))}, which is no token"
                raise CheckpointError(what, where=self.places[key], fix=SAVE_AGAIN)

    def flag(self, key: str, usual: bool | None) -> bool | None:
        """A setting that is on or off.

        Raises:
            CheckpointError: it is something else.
        """
        value = self.config.get(key, usual)
        if value is not None and not isinstance(value, bool):
            what = f"'{key}' is {shortened(repr(value))}, not true or false"
            raise CheckpointError(what, where=self.places[key])
        return value


def read_settings(files: Mapping[str, bytes], folder: str) -> Settings:
    """Read those of the files that are there.

    Args:
        files: a tokenizer's files by name.
        folder: where they are of, for errors.

    Raises:
        CheckpointError: one of them is not what it should be.
    """
    parsed = {
        name: parse_file(files[name], f"{folder}/{name}")
        for name in (CONFIG, SPECIAL, ADDED)
        if name in files
    }
    config = parsed.get(CONFIG, {})
    places = dict.fromkeys(config, f"{folder}/{CONFIG}")
    listed = config.get("added_tokens_decoder")
    if listed is None:
        special_map = parsed.get(SPECIAL, {})
        config = {**config, **special_map}
        places |= dict.fromkeys(special_map, f"{folder}/{SPECIAL}")
    roles, lists = _roles(config, places), _lists(config, places)
    others = tuple((key, token) for key, named in lists.items() for token in _strings(named))
    if listed is None:
        special = {*roles.values(), *(token for _, token in others)}
        declared = list(_numbered(parsed.get(ADDED, {}), special, f"{folder}/{ADDED}"))
    else:
        declared = list(_decoder(listed, places["added_tokens_decoder"]))
    return Settings(
        config={**config, **roles, **lists},
        declared=tuple(sorted(declared, key=lambda token: token.number)),
        roles=roles,
        others=others,
        places=places,
    )


def _numbered(raw: Any, special: set[str], where: str) -> Iterator[Declared]:
    """The tokens of added_tokens.json, which says no more of them than their ids."""
    for token, number in read_ids(raw, where).items():
        how = AddedToken(special=token in special, normalized=token not in special)
        yield Declared(content=token, number=number, how=how, where=where)


def _decoder(raw: Any, where: str) -> Iterator[Declared]:
    if not isinstance(raw, dict):
        raise CheckpointError("'added_tokens_decoder' is not an object", where=where)
    for number, entry in raw.items():
        plain = number.isascii() and number.isdecimal() and len(number) < _DIGITS
        yield read_declared(entry, int(number) if plain else number, where)


def _roles(config: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, str]:
    return {
        key: _content(key, value, places)
        for key, value in config.items()
        if key.endswith("_token") and isinstance(value, str | dict)
    }


def _lists(config: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Listed]:
    found: dict[str, Listed] = {}
    for key in _LISTS:
        values = config.get(key)
        if isinstance(values, dict):
            found[key] = {name: _content(key, value, places) for name, value in values.items()}
        elif isinstance(values, list):
            found[key] = [_content(key, value, places) for value in values]
    return found


def _strings(listed: Listed) -> list[str]:
    return list(listed.values()) if isinstance(listed, dict) else listed


def _content(key: str, value: Any, places: Mapping[str, str]) -> str:
    """The string of a token that is spelled out or described."""
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str):
        what = f"'{key}' is {shortened(repr(value))}, no token"
        raise CheckpointError(what, where=places[key])
    return content
