"""The Hub's client as it is used for writing, and settings that are the whole process's."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    get_session,
)

from tensorsurgeon import __version__
from tensorsurgeon.errors import PushError
from tensorsurgeon.hub.requests import CONNECTING

_PATIENCE = 6
"""How much longer to wait for an answer than for bytes: a commit of many files takes a while."""

_NOTED = {"_upload_mode", "_should_ignore", "_is_uploaded"}
"""What the client notes of a file that it has sent; see `sending.Addition`."""


def client() -> HfApi:
    """The client; it finds endpoint and token itself."""
    return HfApi(library_name="tensorsurgeon", library_version=__version__)


@contextmanager
def set_for_pushing() -> Iterator[None]:
    """While something is pushed: no bars, no wait for ever, and files go by the LFS protocol.

    The other protocol, Xet, tells of no progress, cannot be stopped, and takes memory that no
    forecast knows; the Hub takes files by either.

    Raises:
        PushError: the client is of another version than this was written for.
    """
    if not CommitOperationAdd.__dataclass_fields__.keys() >= _NOTED:
        raise PushError("this huggingface_hub is not known", fix="install one of version 2")
    had_bars, before = not are_progress_bars_disabled(), constants.HF_HUB_DISABLE_XET
    timeout = get_session().timeout
    wait = _PATIENCE * float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
    get_session().timeout = httpx2.Timeout(wait, connect=CONNECTING)
    constants.HF_HUB_DISABLE_XET = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where a variable of the user's decides about bars
        disable_progress_bars()
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before
        get_session().timeout = timeout
        if had_bars:
            enable_progress_bars()
