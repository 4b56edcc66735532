"""The Hub takes a trained checkpoint and its card."""

from pathlib import Path

from tensorsurgeon.checkpoint import MANIFEST_NAME
from tensorsurgeon.trainer.export import Losses, write_checkpoint
from tests.hub.conftest import client, hub
from tests.hub.desk import REPO, Desk, desk
from tests.hub.quick import quick
from tests.trainer.export.models import export_of, same

__all__ = ["client", "desk", "hub", "quick"]


def test_push_sends_every_file_and_has_the_card_looked_at(
    tied: Path, desk: Desk, tmp_path: Path
) -> None:
    export = export_of(tied)
    write_checkpoint(export, tmp_path / "out", same(export.checkpoint), losses=Losses(after=2.0))
    desk.pushed(tmp_path / "out")
    assert MANIFEST_NAME in desk.hub.files(REPO)
    assert (tmp_path / "out/README.md").read_text() in desk.hub.registry.checked_cards
