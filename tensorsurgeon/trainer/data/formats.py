"""Forms of records: texts, Alpaca's instructions, chats, and pairs of answers to prefer between.

Of instructions, chats and pairs the answers alone are learned, up to and with the token that ends
them. The records that have nothing to learn are left out, and counted by the reason.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Protocol

from tensorsurgeon.errors import DataError
from tensorsurgeon.trainer.data.chat import ChatTemplate, Message, messages_of
from tensorsurgeon.trainer.data.drafts import Draft, encode_drafts, whole
from tensorsurgeon.trainer.data.fields import FormatName
from tensorsurgeon.trainer.data.index import Kind
from tensorsurgeon.trainer.data.shard_writer import Document
from tensorsurgeon.trainer.data.texts import Record, text_of
from tensorsurgeon.trainer.data.tokenizer import Tokenizer

Unit = tuple[Document, ...]
"""What belongs together: a document, or an answer chosen and one rejected."""

EMPTY_TEXT = "empty text"
EMPTY_ANSWER = "empty answer"
NO_ANSWER = "no message of the assistant"
SAME_ANSWERS = "chosen and rejected are the same"
CONTROL_TOKEN = "a control token spelled out in a message"

FIXES = {
    EMPTY_TEXT: "give records that have a text",
    EMPTY_ANSWER: "give records that have an answer",
    NO_ANSWER: 'give chats with an answer, a message whose role is "assistant"',
    SAME_ANSWERS: "give pairs whose answers differ",
    CONTROL_TOKEN: "take what spells a control token of the tokenizer out of the messages",
}
"""What to do about each reason for which a record is left out, where all of them are."""

WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
"""Alpaca's prompts (Taori et al. 2023), to the letter: models are tuned to them."""


class Format(Protocol):
    """What to make of records."""

    @property
    def kind(self) -> Kind:
        """What the documents are for."""

    @property
    def fields(self) -> tuple[str, ...]:
        """What is used of a record."""

    @property
    def optional(self) -> tuple[str, ...]:
        """Those fields that may be missing."""

    def encode(self, records: Sequence[Record]) -> list[Unit | str]:
        """The documents of each record, or why there is nothing to learn in it.

        Raises:
            DataError: a record is not of this form; says where.
        """


def find_format(name: FormatName, tokenizer: Tokenizer, field: str | None) -> Format:
    """The form of this name.

    Args:
        name: its name.
        tokenizer: makes the tokens.
        field: where the text is, or the messages; by default `text` and `messages`.
    """
    if name == "text":
        return Texts(tokenizer=tokenizer, field=field or "text")
    if name == "alpaca":
        return Alpaca(tokenizer=tokenizer)
    template = ChatTemplate(tokenizer=tokenizer)
    if name == "chat":
        return Chats(template=template, field=field or "messages")
    return Preferences(template=template)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Texts, learned whole."""

    tokenizer: Tokenizer
    field: str
    kind: Kind = "text"
    optional: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """The text's alone."""
        return (self.field,)

    def encode(self, records: Sequence[Record]) -> list[Unit | str]:
        """As `Format.encode`."""
        texts = [text_of(record, self.field, "text") for record in records]
        return [
            (Document(tokens=whole(self.tokenizer, tokens)),) if text.strip() else EMPTY_TEXT
            for text, tokens in zip(texts, self.tokenizer.encode(texts), strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class Alpaca:
    """An instruction, an input or none, and the output, which is learned."""

    tokenizer: Tokenizer
    kind: Kind = "sft"
    fields: tuple[str, ...] = ("instruction", "input", "output")
    optional: tuple[str, ...] = ("input",)

    def encode(self, records: Sequence[Record]) -> list[Unit | str]:
        """As `Format.encode`."""
        return _encode(self.tokenizer, [self._draft(record) for record in records])

    def _draft(self, record: Record) -> list[Draft] | str:
        instruction, answer = (text_of(record, n, "alpaca") for n in ("instruction", "output"))
        given = text_of(record, "input", "alpaca") if "input" in record.fields else ""
        if not answer.strip():
            return EMPTY_ANSWER
        form = WITH_INPUT if given.strip() else WITHOUT_INPUT
        return [_after(form.format(instruction=instruction, input=given), answer)]


@dataclass(frozen=True, kw_only=True)
class Chats:
    """Chats, in which all that the assistant says is learned."""

    template: ChatTemplate
    field: str
    kind: Kind = "sft"
    optional: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """The messages alone."""
        return (self.field,)

    def encode(self, records: Sequence[Record]) -> list[Unit | str]:
        """As `Format.encode`."""
        return _encode(self.template.tokenizer, [self._draft(record) for record in records])

    @cached_property
    def _spells_control(self) -> Callable[[Sequence[Message]], bool]:
        return _control_finder(self.template.tokenizer)

    def _draft(self, record: Record) -> list[Draft] | str:
        messages = messages_of(record, self.field, "chat")
        answers = [m["content"] for m in messages if m["role"] == "assistant"]
        if not any(map(str.strip, answers)):
            return EMPTY_ANSWER if answers else NO_ANSWER
        if self._spells_control(messages):
            return CONTROL_TOKEN
        return [self.template.learn_all(messages, record.where)]


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """A prompt, the answer chosen and the one rejected, as texts or as messages.

    Messages of `chosen` and `rejected` may hold the prompt as well, and must answer the same one.
    """

    template: ChatTemplate
    kind: Kind = "preference"
    fields: tuple[str, ...] = ("prompt", "chosen", "rejected")
    optional: tuple[str, ...] = ("prompt",)

    def encode(self, records: Sequence[Record]) -> list[Unit | str]:
        """As `Format.encode`."""
        return _encode(self.template.tokenizer, [self._drafts(record) for record in records])

    @cached_property
    def _spells_control(self) -> Callable[[Sequence[Message]], bool]:
        return _control_finder(self.template.tokenizer)

    def _drafts(self, record: Record) -> list[Draft] | str:
        if not isinstance(record.fields.get("chosen"), list):
            return self._of_texts(record)
        chosen, rejected = _chat(record, "chosen"), _chat(record, "rejected")
        if chosen[:-1] != rejected[:-1]:
            what = "'chosen' and 'rejected' do not answer the same messages"
            raise DataError(what, where=record.where)
        answers = chosen[-1]["content"], rejected[-1]["content"]
        if not all(map(str.strip, answers)):
            return EMPTY_ANSWER
        if answers[0] == answers[1]:
            return SAME_ANSWERS
        if self._spells_control([*chosen, rejected[-1]]):
            return CONTROL_TOKEN
        return [self.template.learn_last(chat, record.where) for chat in (chosen, rejected)]

    def _of_texts(self, record: Record) -> list[Draft] | str:
        prompt, *answers = (text_of(record, name, "preference") for name in self.fields)
        if not all(map(str.strip, answers)):
            return EMPTY_ANSWER
        if answers[0] == answers[1]:
            return SAME_ANSWERS
        return [_after(prompt, answer) for answer in answers]


def content_of(form: Format, record: Record) -> bytes:
    """What is used of a record, the same wherever it was read from."""
    used = {name: record.fields.get(name) for name in form.fields}
    return json.dumps(used, ensure_ascii=False, sort_keys=True, default=str).encode(
        "utf-8", "backslashreplace"
    )


def _after(prompt: str, answer: str) -> Draft:
    text = prompt + answer
    return Draft(text=text, answers=((len(prompt), len(text)),), rendered=False)


def _chat(record: Record, name: str) -> list[Message]:
    """The whole chat that ends with one of the two answers."""
    messages = messages_of(record, name, "preference")
    prompt = record.fields.get("prompt")
    if isinstance(prompt, list):
        messages = [*messages_of(record, "prompt", "preference"), *messages]
    elif prompt and messages[0]["role"] == "assistant":
        messages = [{"role": "user", "content": text_of(record, "prompt", "preference")}, *messages]
    if messages[-1]["role"] != "assistant" or len(messages) < 2:
        what = f"'{name}' is not an answer of the assistant to a prompt"
        raise DataError(what, where=record.where)
    return messages


def _control_finder(tokenizer: Tokenizer) -> Callable[[Sequence[Message]], bool]:
    """Whether a message spells a control token, which the template could not keep apart."""
    pattern = re.compile("|".join(map(re.escape, tokenizer.specials)) or r"(?!)")
    return lambda messages: any(pattern.search(message["content"]) for message in messages)


def _encode(tokenizer: Tokenizer, drafted: Sequence[list[Draft] | str]) -> list[Unit | str]:
    """Make the tokens of many drafts at once, which the tokenizer does with all processors."""
    drafts = [draft for made in drafted if not isinstance(made, str) for draft in made]
    documents = iter(encode_drafts(tokenizer, drafts))
    return [
        made if isinstance(made, str) else tuple(islice(documents, len(made))) for made in drafted
    ]
