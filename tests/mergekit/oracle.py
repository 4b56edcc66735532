"""mergekit's own planner, asked what it resolves; run by the interpreter that has mergekit.

A line of stdin is JSON: a configuration, and a folder to merge into or none. A line of stdout is
the answer: for each tensor of the output the models it is merged of, in their order, with the
tensor each gives, and the parameters; nothing where it has merged; or what mergekit raised.
"""

import json
import logging
import os
import sys
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
logging.disable(logging.CRITICAL)

from mergekit.architecture import get_architecture_info  # noqa: E402
from mergekit.config import MergeConfiguration  # noqa: E402
from mergekit.io.tasks import LoaderCache  # noqa: E402
from mergekit.merge import _model_out_config, run_merge  # noqa: E402
from mergekit.options import MergeOptions  # noqa: E402
from mergekit.plan import MergePlanner  # noqa: E402


def resolved(raw: dict[str, Any]) -> dict[str, Any]:
    """What mergekit would do for each tensor."""
    config = MergeConfiguration.model_validate(raw)
    options = MergeOptions()
    LoaderCache().setup(options=options)
    architecture = get_architecture_info(config, options)
    planner = MergePlanner(config, architecture, options, _model_out_config(config, architecture))
    planner._plan()
    return {
        weight.name: {
            "base": None if task.base_model is None else str(task.base_model),
            "inputs": {
                str(model): task.gather_tensors.weight_info[model].name
                for model in task.model_order
            },
            "merge": dict(task.parameters.items()),
            "models": {
                str(model): dict(parameters.items())
                for model, parameters in task.input_parameters.items()
            },
        }
        for weight, task in planner._tensors
    }


def merged(raw: dict[str, Any], folder: str) -> dict[str, Any]:
    """Merge."""
    options = MergeOptions(quiet=True, write_model_card=False, copy_tokenizer=False)
    run_merge(MergeConfiguration.model_validate(raw), folder, options)
    return {}


def main() -> None:
    """Answer every line."""
    for line in sys.stdin:
        try:
            config, folder = json.loads(line)
            answer = resolved(config) if folder is None else merged(config, folder)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
