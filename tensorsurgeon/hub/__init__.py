"""The Hugging Face Hub: the one place that talks to it."""

import logging

from tensorsurgeon.hub.fetching import fetch, has_room
from tensorsurgeon.hub.snapshot import open_repo
from tensorsurgeon.hub.streaming import HubReader

# The client's warnings hold signed addresses; whatever matters comes as an error.
for handler in logging.getLogger("huggingface_hub").handlers:
    handler.setLevel(logging.ERROR)

__all__ = ["HubReader", "fetch", "has_room", "open_repo"]
