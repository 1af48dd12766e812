"""Sync jobs: rows that say what is to be done, handlers that do it, and a log that can be followed."""

from trunkline.jobs.context import BlockingSyncJob, Record, SyncJob
from trunkline.jobs.engine import DevicePort, Engine
from trunkline.jobs.handlers import Handlers, handlers, sync
from trunkline.jobs.model import TRANSITIONS, Job, JobEvent, JobState
from trunkline.jobs.records import Entry, RecordRow, Records
from trunkline.jobs.service import Jobs, events_topic

__all__ = [
    "TRANSITIONS",
    "BlockingSyncJob",
    "DevicePort",
    "Engine",
    "Entry",
    "Handlers",
    "Job",
    "JobEvent",
    "JobState",
    "Jobs",
    "Record",
    "RecordRow",
    "Records",
    "SyncJob",
    "events_topic",
    "handlers",
    "sync",
]
