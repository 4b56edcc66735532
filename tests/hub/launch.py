"""`tensorsurgeon` as a process that does not wait long between two tries of a request."""

from huggingface_hub.utils import http_backoff

from tensorsurgeon.cli import main
from tensorsurgeon.hub import requests

if __name__ == "__main__":
    requests.PAUSE = 0.02
    http_backoff.__kwdefaults__ |= {"base_wait_time": 0.02, "max_wait_time": 0.04}
    main()
