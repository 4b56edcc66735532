"""Chats: what the assistant says is learned, with the token that ends it, and nothing else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.normalizers import Replace

from tensorsurgeon.errors import DataError
from tensorsurgeon.trainer.data.chat import ChatTemplate
from tensorsurgeon.trainer.data.fields import FormatName
from tensorsurgeon.trainer.data.formats import (
    CONTROL_TOKEN,
    EMPTY_ANSWER,
    NO_ANSWER,
    SAME_ANSWERS,
    Unit,
    find_format,
)
from tensorsurgeon.trainer.data.shard_writer import Document
from tensorsurgeon.trainer.data.texts import Record
from tensorsurgeon.trainer.data.tokenizer import Tokenizer, load_tokenizer
from tests.trainer.data.tokens import make_tokenizer

CONVERSATION = [
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "Four."},
    {"role": "user", "content": "And 3 + 3?"},
    {"role": "assistant", "content": "Six.\n"},
    {"role": "user", "content": "Thanks"},
]

MARKED = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] ENDS }}"
    "{% endgeneration %}{{ REST + '\n' }}{% else %}{{ message['content'] + '<|im_end|>\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The template of SmolLM2 with marks around answers."""

END_INSIDE = MARKED.replace("ENDS", "+ '<|im_end|>'").replace("REST", "''")
END_OUTSIDE = MARKED.replace("ENDS", "").replace("REST", "'<|im_end|>'")

UNSTABLE = (
    "{% for message in messages %}{{ message['role'] + ': ' }}"
    "{% if message['role'] == 'assistant' and loop.last %}{{ 'I think. ' }}{% endif %}"
    "{{ message['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
"""Thoughts are only in the last answer, as reasoning models' templates have it."""

ENDLESS = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)

letters = st.characters(exclude_categories=["Cc", "Cs"], max_codepoint=0xFFFF) | st.sampled_from(
    "\n\t😀🎉"
)
"""What this tokenizer can spell: it lacks a few control characters and bytes of rare planes."""

words = st.text(letters, min_size=1, max_size=20).filter(lambda text: text.strip() != "")
conversations = st.lists(st.tuples(words, words), min_size=1, max_size=4).map(
    lambda turns: [
        {"role": role, "content": content}
        for turn in turns
        for role, content in zip(("user", "assistant"), turn, strict=True)
    ]
)


def encode(tokenizer: Tokenizer, form: FormatName, *records: dict[str, Any]) -> list[Unit | str]:
    made = [Record(where=f"a.jsonl:{i}", fields=fields) for i, fields in enumerate(records, 1)]
    return find_format(form, tokenizer, None).encode(made)


def chat(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> Document:
    (unit,) = encode(tokenizer, "chat", {"messages": messages})
    assert isinstance(unit, tuple)
    return unit[0]


def learned_runs(tokenizer: Tokenizer, document: Document) -> list[str]:
    """What is learned, each run of tokens as text."""
    assert document.answers is not None
    edges = np.flatnonzero(np.diff(document.answers, prepend=False, append=False))
    return [
        tokenizer.transformers.decode(document.tokens[begin:end])
        for begin, end in edges.reshape(-1, 2)
    ]


def with_template(tokenizer: Tokenizer, folder: Path, template: str) -> Tokenizer:
    tokenizer.transformers.save_pretrained(folder)
    made = load_tokenizer(folder)
    made.transformers.chat_template = template
    return replace(made, digest=tokenizer.digest)


def test_every_answer_of_a_real_chat_is_learned_with_its_end(smollm2_tokenizer: Tokenizer) -> None:
    document = chat(smollm2_tokenizer, CONVERSATION)
    assert learned_runs(smollm2_tokenizer, document) == ["Four.<|im_end|>", "Six.\n<|im_end|>"]


def test_a_real_chat_is_rendered_as_transformers_does_and_ends_with_its_last_answer(
    smollm2_tokenizer: Tokenizer,
) -> None:
    document = chat(smollm2_tokenizer, CONVERSATION)
    whole = smollm2_tokenizer.transformers.apply_chat_template(CONVERSATION)["input_ids"]
    assert document.tokens.tolist() == whole[: len(document.tokens)]
    assert document.tokens[-1] == smollm2_tokenizer.end


@settings(deadline=None, max_examples=50)
@given(messages=conversations)
def test_answers_found_by_rendering_twice_are_those_that_marks_tell(
    smollm2_tokenizer: Tokenizer,
    marked_tokenizers: list[Tokenizer],
    messages: list[dict[str, str]],
) -> None:
    plain = chat(smollm2_tokenizer, messages)
    assert plain.answers is not None
    for tokenizer in marked_tokenizers:
        assert ChatTemplate(tokenizer=tokenizer).marks_answers
        marked = chat(tokenizer, messages)
        assert marked.answers is not None
        assert marked.tokens.tolist() == plain.tokens.tolist()
        assert marked.answers.tolist() == plain.answers.tolist()


@pytest.fixture(scope="module")
def marked_tokenizers(
    smollm2_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> list[Tokenizer]:
    folder = tmp_path_factory.mktemp("marked")
    return [
        with_template(smollm2_tokenizer, folder / name, template)
        for name, template in (("inside", END_INSIDE), ("outside", END_OUTSIDE))
    ]


@settings(deadline=None, max_examples=50)
@given(messages=conversations)
def test_what_is_learned_spells_the_answers(
    smollm2_tokenizer: Tokenizer, messages: list[dict[str, str]]
) -> None:
    answers = [m["content"] + "<|im_end|>" for m in messages if m["role"] == "assistant"]
    # A token that holds the line end before an answer and some of it belongs to the answer.
    found = learned_runs(smollm2_tokenizer, chat(smollm2_tokenizer, messages))
    assert [text.removeprefix("\n") for text in found] == [
        text.removeprefix("\n") for text in answers
    ]


def test_an_answer_whose_ends_have_no_token_is_told_from_the_rest(
    marked_tokenizers: list[Tokenizer],
) -> None:
    answer = {"role": "assistant", "content": "\x16hm\x16"}
    messages = [CONVERSATION[0], answer, *CONVERSATION[2:4]]
    for tokenizer in marked_tokenizers:
        found = learned_runs(tokenizer, chat(tokenizer, messages))
        assert found == ["hm<|im_end|>", "Six.\n<|im_end|>"]


def test_a_template_that_ends_no_answer_gets_an_end_that_is_learned(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(make_tokenizer(tmp_path / "tokenizer", template=ENDLESS))
    document = chat(tokenizer, CONVERSATION[:2])
    assert learned_runs(tokenizer, document) == ["Four.\n</s>"]


def test_an_answer_that_has_no_token_at_all_still_ends(tmp_path: Path) -> None:
    folder = make_tokenizer(tmp_path / "tokenizer", template=ENDLESS.replace(" + '\n'", ""))
    tokenizer = load_tokenizer(folder)
    tokenizer.transformers.backend_tokenizer.normalizer = Replace("x", "")
    document = chat(tokenizer, [CONVERSATION[0], {"role": "assistant", "content": "x"}])
    assert learned_runs(tokenizer, document) == ["</s>"]


def test_a_template_that_renders_the_past_in_another_way_is_refused_with_the_way_out(
    tmp_path: Path,
) -> None:
    tokenizer = load_tokenizer(make_tokenizer(tmp_path / "tokenizer", template=UNSTABLE))
    with pytest.raises(DataError) as caught:
        chat(tokenizer, CONVERSATION)
    assert str(caught.value).startswith("a.jsonl:1: the answer in message 2 cannot be told")
    assert "{% generation %}" in str(caught.value)
    alone = chat(tokenizer, CONVERSATION[:2])
    assert learned_runs(tokenizer, alone) == ["I think. Four.</s>"]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[7].content }}", "the chat template fails"),
        ("{% for %}", "the chat template fails"),
        ("{{ 'nothing' }}", "renders nothing of message 2"),
        ("{% if false %}{% generation %}x{% endgeneration %}{% endif %}x", "marks none"),
    ],
)
def test_a_template_that_fails_is_told_with_the_record(
    template: str, said: str, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(make_tokenizer(tmp_path / "tokenizer", template=template))
    with pytest.raises(DataError, match=f"a.jsonl:1: .*{said}"):
        chat(tokenizer, CONVERSATION)


def test_a_tokenizer_without_a_template_is_refused(byte_tokenizer: Path) -> None:
    tokenizer = load_tokenizer(byte_tokenizer)
    with pytest.raises(DataError, match="no chat template"):
        chat(tokenizer, CONVERSATION)
    with pytest.raises(DataError, match="no chat template"):
        pair(tokenizer, {"prompt": "a", "chosen": CONVERSATION[1:2], "rejected": CONVERSATION[3:4]})


def test_records_with_nothing_to_learn_are_left_out(smollm2_tokenizer: Tokenizer) -> None:
    user, answer = CONVERSATION[:2]
    made = encode(
        smollm2_tokenizer,
        "chat",
        {"messages": [user]},
        {"messages": [user, {"role": "assistant", "content": " "}]},
        {"messages": [{"role": "user", "content": "<|im_end|>"}, answer]},
        {"messages": [user, answer]},
    )
    assert made[:3] == [NO_ANSWER, EMPTY_ANSWER, CONTROL_TOKEN]
    assert isinstance(made[3], tuple)


def test_a_record_without_messages_is_told_with_the_option_that_reads_it(
    smollm2_tokenizer: Tokenizer,
) -> None:
    for record, fix in (
        ({"id": "a", "conversation": CONVERSATION}, "--field conversation"),
        ({"text": "a"}, "--format text"),
        ({"instruction": "a", "output": "b"}, "--format alpaca"),
    ):
        with pytest.raises(DataError) as caught:
            encode(smollm2_tokenizer, "chat", record)
        assert str(caught.value) == f"a.jsonl:1: has no field 'messages'\n  fix: {fix}"


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (None, "field 'messages' is not a list of messages"),
        ([], "field 'messages' is not a list of messages"),
        (["hello"], "message 1 of 'messages' has no text as its 'role'"),
        ([{"role": "user"}], "message 1 of 'messages' has no text as its 'content'"),
        ([*CONVERSATION[:1], {"role": "assistant", "content": [1]}], "message 2 of 'messages'"),
        (CONVERSATION[1:2], "begins with an answer"),
    ],
)
def test_a_record_that_is_no_chat_is_told_with_its_place(
    messages: Any, said: str, smollm2_tokenizer: Tokenizer
) -> None:
    with pytest.raises(DataError) as caught:
        encode(smollm2_tokenizer, "chat", {"messages": messages})
    assert str(caught.value).startswith(f"a.jsonl:1: {said}")


def pair(tokenizer: Tokenizer, record: dict[str, Any]) -> Unit:
    (unit,) = encode(tokenizer, "preference", record)
    assert isinstance(unit, tuple)
    return unit


def test_of_a_pair_of_chats_the_last_answer_alone_is_learned(
    smollm2_tokenizer: Tokenizer,
) -> None:
    prompt, last = CONVERSATION[:3], [{"role": "assistant", "content": "6"}]
    other = [{"role": "assistant", "content": "7"}]
    whole = pair(smollm2_tokenizer, {"chosen": prompt + last, "rejected": prompt + other})
    split = pair(smollm2_tokenizer, {"prompt": prompt, "chosen": last, "rejected": other})
    for one, two, answer in zip(whole, split, "67", strict=True):
        assert learned_runs(smollm2_tokenizer, one) == [f"{answer}<|im_end|>"]
        assert one.tokens.tolist() == two.tokens.tolist()


def test_the_prompt_of_a_pair_of_chats_may_be_a_text(smollm2_tokenizer: Tokenizer) -> None:
    question, last = CONVERSATION[0], [{"role": "assistant", "content": "4"}]
    other = [{"role": "assistant", "content": "5"}]
    as_text = pair(
        smollm2_tokenizer, {"prompt": question["content"], "chosen": last, "rejected": other}
    )
    as_chat = pair(smollm2_tokenizer, {"prompt": [question], "chosen": last, "rejected": other})
    for one, two in zip(as_text, as_chat, strict=True):
        assert one.tokens.tolist() == two.tokens.tolist()


def test_a_pair_that_is_no_choice_is_left_out(smollm2_tokenizer: Tokenizer) -> None:
    question, answer = CONVERSATION[:2]
    empty = {"role": "assistant", "content": ""}
    made = encode(
        smollm2_tokenizer,
        "preference",
        {"prompt": [question], "chosen": [answer], "rejected": [answer]},
        {"prompt": [question], "chosen": [answer], "rejected": [empty]},
    )
    assert made == [SAME_ANSWERS, EMPTY_ANSWER]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"chosen": CONVERSATION[:2], "rejected": CONVERSATION[2:4]}, "do not answer the same"),
        ({"chosen": CONVERSATION[:3], "rejected": CONVERSATION[:3]}, "'chosen' is not an answer"),
        ({"chosen": CONVERSATION[1:2], "rejected": CONVERSATION[1:2]}, "'chosen' is not an answer"),
        ({"prompt": "a", "chosen": CONVERSATION[1:2], "rejected": "b"}, "'rejected' is not a list"),
    ],
)
def test_a_pair_that_is_none_is_told_with_its_place(
    record: dict[str, Any], said: str, smollm2_tokenizer: Tokenizer
) -> None:
    with pytest.raises(DataError, match=f"a.jsonl:1: .*{said}"):
        encode(smollm2_tokenizer, "preference", record)
