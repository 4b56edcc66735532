"""Chat templates: which one a result has, and where it stands among the tokenizer's files."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tensorsurgeon.errors import CheckpointError, RecipeError, did_you_mean, shortened
from tensorsurgeon.vocabulary.settings import CONFIG
from tensorsurgeon.vocabulary.tokenizer_json import parse_file

JINJA, OF_PROCESSOR = "chat_template.jinja", "chat_template.json"

AUTO = "auto"

_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_ALPACA = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '### Response:\\n' + message['content'] + eos_token + '\\n\\n' }}"
    "{% else %}{{ message['content'] + '\\n\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
)
NAMED = {"alpaca": _ALPACA, "chatml": _CHATML}
"""Templates that can be asked for by name."""


def chat_template(said: str, models: Iterable[tuple[str, Mapping[str, bytes]]]) -> str | None:
    """The chat template that a recipe asks for.

    Args:
        said: Jinja, the name of a template, or `auto` for the one that most of the models have,
            the first of them where several are as frequent.
        models: the folder of each model, for errors, and its tokenizer's files.

    Returns:
        Jinja; None where `auto` finds no model that has one.

    Raises:
        RecipeError: it is no Jinja and no known name.
        CheckpointError: a model's template cannot be read.
    """
    if said == AUTO:
        every = (template_of(files, folder) for folder, files in models)
        found = [template.strip() for template in every if template]
        return Counter(found).most_common(1)[0][0] if found else None
    if "{" in said:
        return said
    if said not in NAMED:
        known = did_you_mean(said, (AUTO, *NAMED))
        what = f"chat_template '{shortened(said)}' is neither Jinja nor a known name"
        raise RecipeError(what, fix=f"paste the template's text in its place; {known}")
    return NAMED[said]


def template_of(files: Mapping[str, bytes], folder: str) -> str | None:
    """The chat template of a model: that of chat_template.jinja before that of its config.

    Raises:
        CheckpointError: it cannot be read.
    """
    if JINJA in files:
        try:
            return files[JINJA].decode()
        except UnicodeDecodeError as error:
            what = f"not UTF-8 at byte {error.start}"
            raise CheckpointError(what, where=f"{folder}/{JINJA}") from None
    for name in (CONFIG, OF_PROCESSOR):
        config = parse_file(files[name], f"{folder}/{name}") if name in files else {}
        said = config.get("chat_template")
        if isinstance(said, list):
            named = (entry for entry in said if isinstance(entry, dict))
            said = next((e.get("template") for e in named if e.get("name") == "default"), None)
        if isinstance(said, str):
            return said
    return None


def with_template(files: Mapping[str, bytes], template: str) -> dict[str, bytes]:
    """A tokenizer's files with another chat template, in each place that has one."""
    made = {**files, JINJA: template.encode()}
    for name in (CONFIG, OF_PROCESSOR):
        config: dict[str, Any] = parse_file(files[name], name) if name in files else {}
        if "chat_template" in config:
            config["chat_template"] = template
            made[name] = indented(config)
    return made


def indented(value: object) -> bytes:
    """A JSON file for people."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
