"""Chats: messages rendered by the tokenizer's chat template, and where the answers are in them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tensorsurgeon.errors import DataError, shortened
from tensorsurgeon.trainer.data.drafts import Draft
from tensorsurgeon.trainer.data.fields import FormatName, fix_for_missing
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
    def source(self) -> str:
        """The template itself.

        Raises:
            DataError: there is none.
        """
        try:
            return str(self.tokenizer.transformers.get_chat_template())
        except ValueError:
            raise DataError(
                "its tokenizer has no chat template",
                where=str(self.tokenizer.folder),
                fix="put a chat_template.jinja there, or use --format alpaca",
            ) from None

    @property
    def marks_answers(self) -> bool:
        """Whether the template has marks."""
        return _MARKS.search(self.source) is not None

    def learn_all(self, messages: Sequence[Message], where: str) -> Draft:
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

    def _marked(self, messages: Sequence[Message], where: str) -> Draft:
        # Not by the mask that apply_chat_template gives: it goes by the tokens of an answer's first
        # and last characters, and is wrong where one of these takes several tokens, or none.
        from transformers.utils.chat_template_utils import render_jinja_template

        render: Any = render_jinja_template
        with _explained(where):
            texts, marks = render(
                conversations=[[dict(message) for message in messages]],
                chat_template=self.source,
                return_assistant_tokens_mask=True,
                **self.tokenizer.transformers.special_tokens_map,
            )
        answers = tuple((begin, self._after_end(texts[0], end)) for begin, end in marks[0])
        if not any(begin < end for begin, end in answers):
            what = "the chat template marks none of its messages as an answer"
            raise DataError(what, where=where, fix="check {% generation %} in chat_template.jinja")
        return Draft(text=texts[0], answers=answers, rendered=True)

    def _after_end(self, text: str, end: int) -> int:
        """After the token that ends an answer, where a mark ends before that."""
        if text.endswith(tuple(self.tokenizer.specials), 0, end):
            return end
        found = [word for word in self.tokenizer.specials if text.startswith(word, end)]
        return end + max(map(len, found), default=0)

    def _render(self, messages: Sequence[Message], where: str, **options: Any) -> str:
        options |= {"chat_template": self.source, "tokenize": False}
        with _explained(where):
            return str(self.tokenizer.transformers.apply_chat_template(list(messages), **options))


@contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of any kind: the template is a stranger's program
        said = shortened(" ".join(str(error).split()), 200)
        raise DataError(f"the chat template fails: {said}", where=where) from error


def messages_of(record: Record, name: str, form: FormatName = "chat") -> list[Message]:
    """A field that must be a list of messages, each with a role and a text.

    Args:
        record: the record.
        name: the field.
        form: what the record is said to be.

    Raises:
        DataError: it is missing, or something else.
    """
    if name not in record.fields:
        lists = [other for other, value in record.fields.items() if isinstance(value, list)]
        fix = fix_for_missing(name, form, record.fields, lists)
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
