"""A Hub with the benchmark's models, as a process of its own.

Started as `python -m tests.bench.serving FOLDER MODEL...`. Prints, as JSON, the variables by which
clients find it; then takes the line of the next runs from each line of its standard input, as
`RATE LATENCY` in bytes per second and seconds, RATE 0 for the loopback's own, and answers with
the bytes that it has sent since. Ends with its standard input.
"""

import json
import sys
from pathlib import Path

from tests.hub.line import Line
from tests.hub.loopback import LoopbackHub


def main(folder: str, *models: str) -> None:
    """Serve each model as `bench/NAME`."""
    hub = LoopbackHub(Path(folder))
    for model in map(Path, models):
        hub.add_folder(f"bench/{model.name}", model)
    print(json.dumps(hub.settings()), flush=True)
    for command in sys.stdin:
        rate, latency = map(float, command.split())
        hub.connect_by(Line(rate=rate, latency=latency))
        print(hub.log.sent(), flush=True)
        hub.log.clear()
    hub.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
