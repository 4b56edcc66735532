"""Instructions and pairs as texts: which tokens are learned, and which records are left out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorsurgeon.errors import DataError
from tensorsurgeon.trainer.data.fields import FormatName
from tensorsurgeon.trainer.data.formats import (
    EMPTY_ANSWER,
    EMPTY_TEXT,
    SAME_ANSWERS,
    Unit,
    find_format,
)
from tensorsurgeon.trainer.data.shard_writer import Document
from tensorsurgeon.trainer.data.texts import Record
from tensorsurgeon.trainer.data.tokenizer import Tokenizer, load_tokenizer
from tests.trainer.data.tokens import BEGIN, END, make_tokenizer

anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
something = anything.filter(lambda text: text.strip() != "")


@pytest.fixture(scope="module", params=["plain", "begins"])
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer") / request.param
    return load_tokenizer(make_tokenizer(folder, begin=request.param == "begins"))


def encode(tokenizer: Tokenizer, form: FormatName, *records: dict[str, Any]) -> list[Unit | str]:
    made = [Record(where=f"a.jsonl:{i}", fields=fields) for i, fields in enumerate(records, 1)]
    return find_format(form, tokenizer, None).encode(made)


def spelled(tokenizer: Tokenizer, tokens: np.ndarray) -> str:
    return tokenizer.transformers.backend_tokenizer.decode(
        tokens.tolist(), skip_special_tokens=False
    )


def prompt_and_answer(tokenizer: Tokenizer, document: Document) -> tuple[str, str]:
    """The two parts as texts; the answer is the end of the document."""
    assert document.answers is not None
    first = int(np.argmax(document.answers))
    assert document.answers[first:].all()
    return tuple(  # type: ignore[return-value]
        spelled(tokenizer, part) for part in (document.tokens[:first], document.tokens[first:])
    )


@settings(deadline=None)
@given(texts=st.lists(something, min_size=1, max_size=5))
def test_a_text_is_its_tokens_and_the_one_that_ends_it(
    tokenizer: Tokenizer, texts: list[str]
) -> None:
    made = encode(tokenizer, "text", *({"text": text} for text in texts))
    begin = "<s>" if tokenizer.begin is not None else ""
    for text, unit in zip(texts, made, strict=True):
        assert isinstance(unit, tuple)
        assert unit[0].answers is None
        assert spelled(tokenizer, unit[0].tokens) == begin + text + "</s>"


def test_a_text_that_spells_control_tokens_has_none_of_them_inside(tokenizer: Tokenizer) -> None:
    (unit,) = encode(tokenizer, "text", {"text": "a</s>b<s>"})
    assert isinstance(unit, tuple)
    inside = unit[0].tokens[0 if tokenizer.begin is None else 1 : -1].tolist()
    assert END not in inside
    assert BEGIN not in inside
    assert unit[0].tokens[-1] == END


def test_empty_texts_are_left_out(tokenizer: Tokenizer) -> None:
    made = encode(tokenizer, "text", {"text": ""}, {"text": " \n"}, {"text": "a"}, {"text": None})
    assert [unit == EMPTY_TEXT for unit in made] == [True, True, False, True]


@settings(deadline=None)
@given(instruction=anything, given_=anything, output=something)
def test_of_an_instruction_the_output_and_its_end_are_learned(
    tokenizer: Tokenizer, instruction: str, given_: str, output: str
) -> None:
    record = {"instruction": instruction, "input": given_, "output": output}
    (unit,) = encode(tokenizer, "alpaca", record)
    assert isinstance(unit, tuple)
    prompt, answer = prompt_and_answer(tokenizer, unit[0])
    assert answer == output + "</s>"
    asked = f"### Instruction:\n{instruction}\n\n"
    given_too = f"### Input:\n{given_}\n\n" if given_.strip() else ""
    assert prompt.endswith(asked + given_too + "### Response:\n")
    assert prompt.startswith("<s>Below" if tokenizer.begin is not None else "Below")


def test_the_input_of_an_instruction_may_be_missing(tokenizer: Tokenizer) -> None:
    records = [
        {"instruction": "a", "output": "b"},
        {"instruction": "a", "output": "b", "input": ""},
    ]
    one, other = encode(tokenizer, "alpaca", *records)
    assert isinstance(one, tuple)
    assert isinstance(other, tuple)
    assert one[0].tokens.tolist() == other[0].tokens.tolist()


def test_an_instruction_without_an_output_is_left_out(tokenizer: Tokenizer) -> None:
    made = encode(tokenizer, "alpaca", {"instruction": "a", "output": " "})
    assert made == [EMPTY_ANSWER]


@settings(deadline=None)
@given(prompt=anything, chosen=something, rejected=something)
def test_of_a_pair_both_answers_are_learned_after_the_same_prompt(
    tokenizer: Tokenizer, prompt: str, chosen: str, rejected: str
) -> None:
    record = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    (unit,) = encode(tokenizer, "preference", record)
    if chosen == rejected:
        assert unit == SAME_ANSWERS
        return
    assert isinstance(unit, tuple)
    begin = "<s>" if tokenizer.begin is not None else ""
    for document, answer in zip(unit, (chosen, rejected), strict=True):
        assert prompt_and_answer(tokenizer, document) == (begin + prompt, answer + "</s>")


def test_a_pair_with_an_empty_answer_is_left_out(tokenizer: Tokenizer) -> None:
    record = {"prompt": "a", "chosen": "b", "rejected": ""}
    assert encode(tokenizer, "preference", record) == [EMPTY_ANSWER]


@pytest.mark.parametrize(
    ("form", "record", "said"),
    [
        ("alpaca", {"instruction": "a"}, "has no field 'output'"),
        (
            "alpaca",
            {"instruction": ["a"], "output": "b"},
            "field 'instruction' is not a text, but list",
        ),
        ("preference", {"prompt": "a", "chosen": "b"}, "has no field 'rejected'"),
        ("preference", {"chosen": "b", "rejected": "c"}, "has no field 'prompt'"),
        ("text", {"body": "a"}, "has no field 'text'\n  fix: --field body"),
        (
            "text",
            {"body": "a", "texts": "b", "id": 1},
            "has no field 'text'\n  fix: --field texts; known: body, texts",
        ),
        (
            "text",
            {"one": "a", "two": "b"},
            "has no field 'text'\n  fix: name it with --field; known: one, two",
        ),
        ("text", {"my body": "a", "id": 1}, "has no field 'text'\n  fix: --field 'my body'"),
        ("text", {"id": 1}, "has no field 'text'\n  fix: known: id"),
        ("text", {"messages": [], "id": "a"}, "has no field 'text'\n  fix: --format chat"),
        (
            "text",
            {"instruction": "a", "input": "b", "output": "c"},
            "has no field 'text'\n  fix: --format alpaca",
        ),
        (
            "alpaca",
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            "has no field 'instruction'\n  fix: --format preference",
        ),
        ("alpaca", {"instruction": "a", "outptu": "b"}, "has no field 'output'\n  fix: did you"),
        ("preference", {"messages": []}, "has no field 'prompt'\n  fix: --format chat"),
    ],
)
def test_a_record_of_another_form_is_told_with_its_place(
    tokenizer: Tokenizer, form: FormatName, record: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError) as caught:
        encode(tokenizer, form, record)
    assert str(caught.value).startswith(f"a.jsonl:1: {said}")


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    folder = make_tokenizer(tmp_path / "tokenizer")
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"eos_token"', '"unused"'))
    with pytest.raises(DataError, match="eos_token"):
        load_tokenizer(folder)


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = make_tokenizer(tmp_path / "tokenizer")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="cannot be loaded"):
        load_tokenizer(folder)


def test_code_beside_a_tokenizer_is_not_run(tmp_path: Path) -> None:
    folder = make_tokenizer(tmp_path / "tokenizer")
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: pass\n")
    config = folder / "tokenizer_config.json"
    named = {"auto_map": {"AutoTokenizer": ["mine.Mine", None]}, "tokenizer_class": "Mine"}
    config.write_text(json.dumps(json.loads(config.read_text()) | named))
    with pytest.raises(DataError, match="custom code"):
        load_tokenizer(folder)
    assert not (tmp_path / "ran").exists()
