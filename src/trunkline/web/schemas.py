"""The shapes of requests and answers, as OpenAPI shows them."""

import datetime
from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from trunkline.batch import Batch
from trunkline.gateway import Command, Device
from trunkline.jobs import Entry, Job, RecordRow

__all__ = [
    "BatchPage",
    "BatchView",
    "CommandPage",
    "CommandView",
    "DevicePage",
    "DeviceView",
    "EntryView",
    "JobPage",
    "JobView",
    "NewCommand",
    "NewRecord",
    "RecordPage",
    "RecordView",
    "RecordWithEntries",
    "StateAt",
    "Status",
    "Stored",
    "SyncStarted",
    "moment",
]

_ITEMS_SHOWN = 20


def moment(value: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    at = datetime.datetime.fromtimestamp(value, datetime.UTC)
    return at.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


Moment = Annotated[
    float,
    PlainSerializer(moment, return_type=str, when_used="unless-none"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""Seconds since 1970 inside, ISO 8601 in UTC outside."""


class _View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class DeviceView(_View):
    """A device and its presence."""

    id: str
    profile: str
    online: bool
    address: str | None = Field(description="where its line comes from, host:port")
    node: str | None
    first_seen_at: Moment
    last_seen_at: Moment
    online_since: Moment | None
    offline_since: Moment | None
    offline_reason: str | None = Field(
        description="why it is offline: peer_closed, reset, idle, taken_over, drained, ..."
    )

    @classmethod
    def of(cls, device: Device) -> "DeviceView":
        """The view of a device."""
        return cls.model_validate(device)


class DevicePage(BaseModel):
    """A page of devices, by id."""

    items: list[DeviceView]
    next: str | None = Field(description="pass it as `after` for the next page")
    total: int
    online: int


class NewCommand(BaseModel):
    """A command to send."""

    model_config = ConfigDict(extra="forbid")

    cmd: str = Field(description="one line of text")
    timeout: float | None = Field(None, description="seconds to wait for the reply after the write")
    ttl: float | None = Field(None, description="seconds in which it must have been written")


class StateAt(BaseModel):
    """A state, and the moment at which it was reached."""

    state: str
    at: Moment


class CommandView(BaseModel):
    """A command as it stands."""

    id: str
    device: str
    cmd: str
    state: str = Field(description="queued, written, replied, failed, expired or unknown")
    states: list[StateAt]
    reply: str | None
    reason: str | None = Field(description="why it ended without a reply")
    timeout: float
    ttl: float
    expires_at: Moment
    writes: int = Field(description="how often it was written: more than once if a line broke before the reply")
    late_reply: str | None = Field(description="what came after the outcome had been recorded as unknown")

    @classmethod
    def of(cls, command: Command) -> "CommandView":
        """The view of a command."""
        states = [StateAt(state="queued", at=command.queued_at)]
        if command.written_at is not None:
            states.append(StateAt(state="written", at=command.written_at))
        if command.ended_at is not None:
            states.append(StateAt(state=str(command.state), at=command.ended_at))
        return cls(
            id=command.id,
            device=command.device,
            cmd=command.cmd,
            state=str(command.state),
            states=states,
            reply=command.reply,
            reason=command.reason,
            timeout=command.timeout,
            ttl=command.ttl,
            expires_at=command.expires_at,
            writes=command.writes,
            late_reply=command.late_reply,
        )


class CommandPage(BaseModel):
    """A page of commands, newest first."""

    items: list[CommandView]
    next: str | None = Field(description="pass it as `before` for the next page")


class JobView(_View):
    """A job as it stands."""

    id: str
    type: str
    record: str
    state: str = Field(description="queued, running, succeeded or failed")
    attempt: int
    done: float | None
    total: float | None
    created_at: Moment
    started_at: Moment | None
    ended_at: Moment | None
    error: str | None

    @classmethod
    def of(cls, job: Job) -> "JobView":
        """The view of a job."""
        return cls.model_validate(job)


class JobPage(BaseModel):
    """A page of jobs, newest first."""

    items: list[JobView]
    next: str | None = Field(description="pass it as `before` for the next page")
    total: int


class SyncStarted(BaseModel):
    """The job that syncs the record."""

    job: JobView
    joined: bool = Field(description="whether it was under way already")


class NewRecord(BaseModel):
    """A record's title."""

    model_config = ConfigDict(extra="forbid")

    title: str = ""


class RecordView(BaseModel):
    """A record, and its latest job."""

    type: str
    id: str
    title: str
    synced_at: Moment | None
    job: JobView | None

    @classmethod
    def of(cls, record: RecordRow) -> "RecordView":
        """The view of a record."""
        return cls(
            type=record.type,
            id=record.id,
            title=record.title,
            synced_at=record.synced_at,
            job=JobView.of(record.job) if record.job is not None else None,
        )


class EntryView(BaseModel):
    """One thing that was read of a record."""

    key: str
    value: Any
    updated_at: Moment


class RecordWithEntries(RecordView):
    """A record, and the first 200 of its entries, by key."""

    entries: list[EntryView]

    @classmethod
    def with_entries(cls, record: RecordRow, entries: list[Entry]) -> "RecordWithEntries":
        """The view of a record with its entries."""
        view = RecordView.of(record)
        return cls(
            # Field by field: model_dump would give the moments as text already, as they go out.
            **{name: getattr(view, name) for name in RecordView.model_fields},
            entries=[
                EntryView(key=entry.key, value=msgspec.json.decode(entry.value), updated_at=entry.updated_at)
                for entry in entries
            ],
        )


class RecordPage(BaseModel):
    """A page of records, by type and id."""

    items: list[RecordView]
    next: str | None = Field(description="pass it as `after` for the next page")
    total: int


class Stored(BaseModel):
    """How many items are on disk now."""

    stored: int


class BatchView(BaseModel):
    """A batch."""

    id: str
    state: str = Field(description="planned or stored")
    created_at: Moment
    stored_at: Moment | None
    file: str
    count: int
    items: list[Any] = Field(description=f"the first {_ITEMS_SHOWN}")

    @classmethod
    def of(cls, batch: Batch) -> "BatchView":
        """The view of a batch."""
        return cls(
            id=batch.id,
            state=str(batch.state),
            created_at=batch.created_at,
            stored_at=batch.stored_at,
            file=batch.file,
            count=len(batch.items),
            items=[msgspec.json.decode(item) for item in batch.items[:_ITEMS_SHOWN]],
        )


class BatchPage(BaseModel):
    """A page of batches, newest first."""

    items: list[BatchView]
    next: str | None = Field(description="pass it as `before` for the next page")
    spooled: int = Field(description="items that wait for their batch")


class Status(BaseModel):
    """The node in figures."""

    node: str
    version: str
    started_at: Moment
    devices_online: int
    devices_total: int
    commands_open: int
    jobs_running: int
    items_spooled: int
    items_stored: int
    batches_stored: int
    open_access: bool = Field(description="whether HTTP is open to all that runs on this machine")
