"""The vocabulary of a checkpoint, read from the bytes of its tokenizer's files.

The ids are those that the `tokenizers` library and transformers give each token once they have
loaded the files. Where a file says another id, or none, the files are refused.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tensorsurgeon.errors import CheckpointError, shortened
from tensorsurgeon.vocabulary.before_json import AS_JSON, document_of
from tensorsurgeon.vocabulary.settings import read_settings
from tensorsurgeon.vocabulary.spelling import SpellingError, spelling_of
from tensorsurgeon.vocabulary.tokenizer_json import (
    SAVE_AGAIN,
    Declared,
    Model,
    parse_file,
    read_added,
    read_model,
)
from tensorsurgeon.vocabulary.values import AddedToken, Vocabulary

TOKENIZER = "tokenizer.json"
SENTENCEPIECE = "tokenizer.model"


def read_vocabulary(files: Mapping[str, bytes], *, folder: str, rows: int) -> Vocabulary:
    """Read a tokenizer's files.

    Args:
        files: their bytes, by name.
        folder: where they are of, for errors.
        rows: rows of the embedding that the tokens index.

    Raises:
        CheckpointError: they are none, contradict themselves, or have a token without a row.
    """
    settings = read_settings(files, folder)
    if TOKENIZER in files:
        where = f"{folder}/{TOKENIZER}"
        document = parse_file(files[TOKENIZER], where)
    elif SENTENCEPIECE in files:
        what = "is of sentencepiece, and there is no tokenizer.json beside it"
        raise CheckpointError(what, where=f"{folder}/{SENTENCEPIECE}", fix=AS_JSON)
    else:
        where, document = document_of(files, settings, folder)
    model = read_model(document.get("model"), where)
    declared = [*read_added(document.get("added_tokens", []), where), *settings.declared]
    ids = _numbered(model, declared)
    settings.check(ids)
    _check_rows(ids, rows, {token.content: token.where for token in declared}, where)
    frame: dict[str, Any] = {**document, "model": model.options}
    frame.pop("added_tokens", None)
    try:
        spelling = spelling_of(frame)
    except SpellingError as problem:
        raise CheckpointError(str(problem), where=where) from None
    return Vocabulary(
        rows=rows,
        ids={token: ids[token] for token in sorted(ids, key=ids.__getitem__)},
        added=_first_said(declared),
        outside=frozenset(token.content for token in declared) - model.ids.keys(),
        scores=model.scores,
        merges=model.merges,
        frame=frame,
        settings=settings.config,
        roles=settings.roles,
        spelling=spelling,
    )


def _numbered(model: Model, declared: Iterable[Declared]) -> dict[str, int]:
    """The id of each token, added ones as the `tokenizers` library numbers them.

    It gives an added token the id that the model has for it, or the one after all that came before;
    the id in the file it only reads.
    """
    ids = dict(model.ids)
    taken = {number: token for token, number in ids.items()}
    highest = -1
    for token in declared:
        said = shortened(repr(token.content))
        given = ids.get(token.content)
        if given is None:
            given = max(highest + 1, len(model.ids))
        if given != token.number:
            what = f"token {said} has id {token.number}, and {given} once it is loaded"
            raise CheckpointError(what, where=token.where, fix=SAVE_AGAIN)
        if taken.setdefault(given, token.content) != token.content:
            other = shortened(repr(taken[given]))
            what = f"tokens {other} and {said} have one id, {given}"
            raise CheckpointError(what, where=token.where)
        ids[token.content] = given
        highest = max(highest, given)
    return ids


def _first_said(declared: Iterable[Declared]) -> dict[str, AddedToken]:
    """How each added token is found, by the first file that says it; in the order of the ids."""
    found: dict[str, AddedToken] = {}
    for token in sorted(declared, key=lambda token: token.number):
        found.setdefault(token.content, token.how)
    return found


def _check_rows(ids: Mapping[str, int], rows: int, places: Mapping[str, str], where: str) -> None:
    beyond = [token for token, number in ids.items() if number >= rows]
    if beyond:
        first = min(beyond, key=ids.__getitem__)
        more = f" ({len(beyond)} such tokens)" if len(beyond) > 1 else ""
        raise CheckpointError(
            f"token {shortened(repr(first))} of the tokenizer has id {ids[first]}, and the "
            f"embedding has {rows} rows{more}",
            where=places.get(first, where),
            fix="remove it from the tokenizer's files, or give it a row: load both with "
            "transformers, model.resize_token_embeddings(len(tokenizer)), save_pretrained",
        )
