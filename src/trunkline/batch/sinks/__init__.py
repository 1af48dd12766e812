"""Sinks: where batches go."""

from trunkline.batch.sinks.base import Sink

__all__ = ["Sink"]
