"""Has transformers load a checkpoint, and fails where a weight is missing, left over or misshapen.

    python check.py FOLDER

The weights go to torch's meta device, which keeps shapes alone: a model larger than the machine's
memory can be checked as well.
"""

import os
import sys
from typing import Any

FIX = "fix: where transformers does not know the model, set the input check to 'false'"


def main(folder: str) -> int:
    """Says on stdout what was loaded; 1 where that cannot be done, or not fully."""
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TRANSFORMERS_VERBOSITY="error")
    try:
        model, loading = load(folder)
    except Exception as error:  # whatever a library of many authors makes of a strange config
        print(f"error: transformers cannot load the result: {error!r}\n  {FIX}")
        return 1
    if problems := {kind: sorted(map(str, names)) for kind, names in loading.items() if names}:
        for kind, names in problems.items():
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            print(f"error: transformers reports {len(names)} {kind}: {names[:10]}{more}")
        return 1
    print(
        f"transformers loads it as {type(model).__name__}: {model.num_parameters():,} parameters, "
        "no weight missing or left over"
    )
    return 0


def load(folder: str) -> tuple[Any, dict[str, Any]]:
    """The model, of the class that its config names, and what transformers says of its weights."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    names = config.architectures or ["AutoModel"]
    loaded: tuple[Any, dict[str, Any]] = getattr(transformers, names[0]).from_pretrained(
        folder,
        device_map="meta",
        dtype="auto",
        ignore_mismatched_sizes=True,  # they are reported with the others
        output_loading_info=True,
    )
    return loaded


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
