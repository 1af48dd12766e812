"""Batch storage: items are spooled, grouped by rules, and written to a sink."""

from trunkline.batch.rules import BatchRules, plan
from trunkline.batch.sinks import Sink
from trunkline.batch.spool import Batch, BatchState
from trunkline.batch.storage import Storage

__all__ = ["Batch", "BatchRules", "BatchState", "Sink", "Storage", "plan"]
