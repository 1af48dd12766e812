"""Sinks: where batches go."""

from trunkline.batch.sinks.base import Sink
from trunkline.batch.sinks.files import FileSink

__all__ = ["FileSink", "Sink"]
