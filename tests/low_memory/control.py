"""The control: it takes the engine's command line, and loads everything before it does anything.

`python -m tests.low_memory.control apply RECIPE -o OUT …` reads all tensors of all models of a
recipe, averages them name by name, whatever the recipe says, and writes one file: the way of many
a short merging script, and right in all but its memory.
"""

import argparse
import json
import os
from pathlib import Path


def main(recipe: Path, out: Path) -> None:
    """Load, average, write."""
    # Idle threads of an algebra that is not used would count against the limit.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import ml_dtypes
    import numpy as np
    from safetensors.numpy import save_file

    from tests.bench.compare import locate
    from tests.bench.shapes import BF16_BYTES

    # A source is a path; what is made of sources is a mapping.
    models = json.loads(recipe.read_text())["models"].values()
    sources = [recipe.parent / model for model in models if isinstance(model, str)]
    loaded = []
    for source in sources:
        # Whole files at a time: a program that meets a limit between two small reads may have no
        # room for its own code, which is then paged in and out for ever: it is not even killed.
        files = {path: np.fromfile(path, np.uint8) for path in sorted(source.glob("*.safetensors"))}
        loaded.append(
            {
                name: files[at.path][at.offset : at.offset + BF16_BYTES * at.elements]
                .view(ml_dtypes.bfloat16)
                .reshape(at.shape)
                for name, at in locate(source).items()
            }
        )
    merged = {
        name: (sum(model[name].astype(np.float32) for model in loaded) / len(loaded)).astype(
            ml_dtypes.bfloat16
        )
        for name in loaded[0]
    }
    out.mkdir(parents=True)
    save_file(merged, out / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["apply"])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("-o", dest="out", type=Path, required=True)
    known, _ = parser.parse_known_args()
    main(known.recipe, known.out)
