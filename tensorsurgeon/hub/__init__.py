"""The Hugging Face Hub: the one place that talks to it."""

from tensorsurgeon.hub.delivery import HubDelivery
from tensorsurgeon.hub.fetching import cache_free, fetch, has_room, memory_beside
from tensorsurgeon.hub.pushing import MESSAGE, Pushed, push_folder
from tensorsurgeon.hub.small_files import fetch_small
from tensorsurgeon.hub.snapshot import open_repo, open_repos
from tensorsurgeon.hub.streaming import HubReader, spool_needed
from tensorsurgeon.hub.target import Target, check_target, open_target

__all__ = [
    "MESSAGE",
    "HubDelivery",
    "HubReader",
    "Pushed",
    "Target",
    "cache_free",
    "check_target",
    "fetch",
    "fetch_small",
    "has_room",
    "memory_beside",
    "open_repo",
    "open_repos",
    "open_target",
    "push_folder",
    "spool_needed",
]
