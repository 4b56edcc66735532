"""The checkpoint that comes out of a training: a folder that continues the surgery's manifest."""

from tensorsurgeon.trainer.export.plan import Export, plan_export
from tensorsurgeon.trainer.export.training import Losses, Training
from tensorsurgeon.trainer.export.write import Values, is_finished, write_checkpoint

__all__ = [
    "Export",
    "Losses",
    "Training",
    "Values",
    "is_finished",
    "plan_export",
    "write_checkpoint",
]
