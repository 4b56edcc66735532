"""`tokens.json`: what the token shards of a folder hold, and the tokenizer that made them."""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tensorsurgeon.checkpoint.strict_json import StrictJSONError, parse_object
from tensorsurgeon.errors import DataError, fix_for, shortened
from tensorsurgeon.trainer.data.folders import no_such_folder
from tensorsurgeon.writing import json_bytes

INDEX_NAME = "tokens.json"
FORMAT: Final = "tensorsurgeon-tokens"
VERSION: Final = 1

INDEX_LIMIT = 25_000_000
"""Largest index read, in bytes; one of ten trillion tokens takes as much."""

Kind = Literal["text", "sft", "preference"]
"""What documents are for: all of a text is learned, of the others the answers alone."""

Count = Annotated[int, Field(ge=0, lt=1 << 60)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ShardEntry(_Part):
    """One shard: its file, and what is in it."""

    file: str = Field(pattern=r"^tokens-[0-9]{5,9}\.safetensors$")
    bytes: Count
    sha256: Digest
    tokens: Count
    documents: Count


class TokenIndex(_Part):
    """All of `tokens.json`.

    Attributes:
        kind: what the documents are for.
        tokenizer: SHA-256 of the tokenizer (see `tokenizer_digest`).
        vocabulary: every token is below.
        largest_token: the largest that occurs.
        end_of_document: the token that ends a document; also what samples are padded with.
        tokens: of all documents.
        documents: how many; an answer chosen and one rejected are two.
        learned: tokens that are learned.
        shards: the files, in the order of their documents.
    """

    format: Literal["tensorsurgeon-tokens"] = FORMAT
    version: Literal[1] = VERSION
    kind: Kind
    tokenizer: Digest
    vocabulary: Annotated[int, Field(ge=1, le=1 << 32)]
    largest_token: Count
    end_of_document: Count
    tokens: Count
    documents: Count
    learned: Count
    shards: tuple[ShardEntry, ...]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if len({shard.file for shard in self.shards}) != len(self.shards):
            raise ValueError("one shard is listed twice")
        if self.tokens != sum(shard.tokens for shard in self.shards):
            raise ValueError("the shards' tokens do not add up to all tokens")
        if self.documents != sum(shard.documents for shard in self.shards):
            raise ValueError("the shards' documents do not add up to all documents")
        if max(self.largest_token, self.end_of_document) >= self.vocabulary:
            raise ValueError("a token is outside of the vocabulary")
        if self.kind == "preference" and any(shard.documents % 2 for shard in self.shards):
            raise ValueError("a shard of preferences has an odd number of documents")
        return self

    @property
    def has_answers(self) -> bool:
        """Whether the shards say of each token if it is learned."""
        return self.kind != "text"

    @property
    def token_bytes(self) -> int:
        """Bytes of a token on the disk."""
        return token_bytes(self.vocabulary)

    def encode(self) -> bytes:
        """The file's bytes."""
        return json_bytes(self.model_dump(mode="json"))


def token_bytes(vocabulary: int) -> int:
    """Bytes that a token takes on the disk: two where all of the vocabulary fits."""
    return 2 if vocabulary <= 1 << 16 else 4


def read_index(folder: Path) -> TokenIndex:
    """The index of a folder of token shards.

    Raises:
        DataError: there is none, or no such folder, or it breaks a rule of the format; says which.
    """
    path = folder / INDEX_NAME
    try:
        with path.open("rb") as file:
            raw = file.read(INDEX_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        fix = "'tensorsurgeon train prepare' makes token shards of texts"
        if not folder.is_dir():
            raise no_such_folder(folder, _has_index, fix) from None
        what = f"holds no token shards: there is no {INDEX_NAME}"
        raise DataError(what, where=str(folder), fix=fix) from None
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise DataError(what, where=str(path), fix=fix_for(error)) from None
    if len(raw) > INDEX_LIMIT:
        raise DataError(f"is over the limit of {INDEX_LIMIT} bytes", where=str(path))
    try:
        said = parse_object(raw)
        _check_version(said.get("format"), said.get("version"), path)
        return TokenIndex.model_validate_json(raw)
    except StrictJSONError as problem:
        raise DataError(f"is damaged: {problem}", where=str(path)) from None
    except ValidationError as error:
        raise DataError(_in_words(error), where=str(path), fix="prepare the tokens again") from None


def _has_index(folder: Path) -> bool:
    return (folder / INDEX_NAME).is_file()


def _check_version(form: object, version: object, path: Path) -> None:
    if form != FORMAT:
        said = shortened(repr(form))
        raise DataError(f"is no index of token shards: its format is {said}", where=str(path))
    if version != VERSION:
        said = shortened(repr(version))
        what = f"is of version {said}, and only {VERSION} is known here"
        raise DataError(what, where=str(path), fix="prepare the tokens again, or update")


def _in_words(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    what = f"{shortened(place)}: {message}" if place else message
    return f"is damaged: {what[:1].lower() + what[1:]}"
