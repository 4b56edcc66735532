"""Chats: messages rendered by the tokenizer's chat template, and where the answers are in them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tensorsurgeon.errors import DataError, did_you_mean, shortened
from tensorsurgeon.trainer.data.drafts import Draft, ended
from tensorsurgeon.trainer.data.shard_writer import Document
from tensorsurgeon.trainer.data.texts import Record
from tensorsurgeon.trainer.data.tokenizer import Tokenizer

Message = Mapping[str, Any]

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """The chat template of a tokenizer.

    Answers are where the template itself marks them with `{% generation %}`. One without such marks
    is rendered up to each answer and again with it, and what was added is the answer; that is only
    so if no message changes how those before it are rendered, and is refused otherwise.
    """

    tokenizer: Tokenizer

    @cached_property
    def marks_answers(self) -> bool:
        """Whether the template has marks.

        Raises:
            DataError: there is no template.
        """
        try:
            template = self.tokenizer.transformers.get_chat_template()
        except ValueError:
            raise DataError(
                "its tokenizer has no chat template",
                where=str(self.tokenizer.folder),
                fix="put a chat_template.jinja there, or use --format alpaca",
            ) from None
        return _MARKS.search(template) is not None

    def learn_all(self, messages: Sequence[Message], where: str) -> Draft | Document:
        """A chat in which every message of the assistant is learned; there is one at least.

        Raises:
            DataError: the template cannot render it, or not so that the answers can be told.
        """
        if self.marks_answers:
            return self._marked(messages, where)
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        return self._draft(messages, turns, where)

    def learn_last(self, messages: Sequence[Message], where: str) -> Draft:
        """A chat in which the last message, an answer, is learned.

        Raises:
            DataError: as `learn_all`.
        """
        _ = self.marks_answers  # there must be a template
        return self._draft(messages, [len(messages) - 1], where)

    def _draft(self, messages: Sequence[Message], turns: Sequence[int], where: str) -> Draft:
        text = self._render(messages, where)
        answers = []
        for turn in turns:
            if turn == 0:
                raise DataError("begins with an answer", where=where, fix="put its question first")
            before = self._render(messages[:turn], where, add_generation_prompt=True)
            after = self._render(messages[: turn + 1], where)
            if not (after.startswith(before) and text.startswith(after)):
                raise DataError(
                    f"the answer in message {turn + 1} cannot be told from the rest: the chat "
                    "template renders a message in another way once others follow",
                    where=where,
                    fix="put {% generation %} and {% endgeneration %} around the answers in "
                    "chat_template.jinja, or make a record of each question",
                )
            if after == before:
                what = f"the chat template renders nothing of message {turn + 1}, an answer"
                raise DataError(what, where=where)
            answers.append((len(before), len(after)))
        return Draft(text=text, answers=tuple(answers), rendered=True)

    def _marked(self, messages: Sequence[Message], where: str) -> Document:
        found = self._apply(
            messages, where, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        tokens = np.array(found["input_ids"], np.int64)
        learned = np.array(found["assistant_masks"], bool)
        if not learned.any():
            what = "the chat template marks none of its messages as an answer"
            raise DataError(what, where=where, fix="check {% generation %} in chat_template.jinja")
        special = np.isin(tokens, list(self.tokenizer.specials.values()))
        stops = np.flatnonzero(learned[:-1] & ~special[:-1] & special[1:]) + 1
        learned[stops] = True  # a template may end its mark before the token that ends the answer
        return ended(self.tokenizer, tokens, learned)

    def _render(self, messages: Sequence[Message], where: str, **options: Any) -> str:
        return str(self._apply(messages, where, tokenize=False, **options))

    def _apply(self, messages: Sequence[Message], where: str, **options: Any) -> Any:
        try:
            return self.tokenizer.transformers.apply_chat_template(list(messages), **options)
        except Exception as error:  # of any kind: the template is a stranger's program
            said = shortened(" ".join(str(error).split()), 200)
            raise DataError(f"the chat template fails: {said}", where=where) from error


def messages_of(record: Record, name: str) -> list[Message]:
    """A field that must be a list of messages, each with a role and a text.

    Raises:
        DataError: it is missing, or something else.
    """
    if name not in record.fields:
        fix = did_you_mean(name, record.fields)
        raise DataError(f"has no field '{name}'", where=record.where, fix=fix)
    messages = record.fields[name]
    if not isinstance(messages, list) or not messages:
        raise DataError(f"field '{name}' is not a list of messages", where=record.where)
    for number, message in enumerate(messages, start=1):
        for key in ("role", "content"):
            if not isinstance(message, Mapping) or not isinstance(message.get(key), str):
                what = f"message {number} of '{name}' has no text as its '{key}'"
                fix = '{"role": "user", "content": "…"} is a message'
                raise DataError(what, where=record.where, fix=fix)
    return messages
