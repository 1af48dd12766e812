"""Sync handlers as a user writes them. The tests copy this module to the folder in which the node starts."""

import asyncio
import json
import threading
import time
from pathlib import Path

import trunkline


@trunkline.sync("meter")
async def read_meter(record: trunkline.Record, job: trunkline.SyncJob) -> None:
    """Reads a device page by page."""
    pages = int(await job.ask(record.id, "PAGES"))
    job.log(f"{record.id} has {pages} pages")
    for page in range(1, pages + 1):
        readings = json.loads(await job.ask(record.id, f"PAGE {page}"))
        await job.save(readings)
        job.log(f"page {page}: {len(readings)} readings")
        job.progress(page, pages)


@trunkline.sync("blocking-meter")
def read_blocking_meter(record: trunkline.Record, job: trunkline.BlockingSyncJob) -> None:
    """The same as a plain function."""
    pages = int(job.ask(record.id, "PAGES"))
    job.log(f"in thread {threading.current_thread().name}")
    for page in range(1, pages + 1):
        job.save(json.loads(job.ask(record.id, f"PAGE {page}")))
        job.progress(page, pages)


@trunkline.sync("gated")
async def wait_for_file(record: trunkline.Record, job: trunkline.SyncJob) -> None:
    """Runs until the file ``open-<id>`` is there, and says so in between."""
    job.log(f"attempt {job.attempt} waits")
    while not Path(f"open-{record.id}").exists():  # noqa: ASYNC110, ASYNC240  another process makes it
        await asyncio.sleep(0.01)
    job.log("the gate is open")


@trunkline.sync("chatty")
async def talk(record: trunkline.Record, job: trunkline.SyncJob) -> None:
    """Says as much as the record's id asks for, in many small bursts."""
    count = int(record.id)
    for number in range(count):
        job.log(f"line {number}")
        if number % 7 == 0:
            job.progress(number, count)
        if number % 50 == 0:
            await asyncio.sleep(0.005)


@trunkline.sync("blocking-forever")
def block(record: trunkline.Record, job: trunkline.BlockingSyncJob) -> None:
    """A handler that never comes to an end."""
    job.log("asleep")
    time.sleep(3600)


@trunkline.sync("failing")
async def fail(record: trunkline.Record, job: trunkline.SyncJob) -> None:
    job.log("before", "warning")
    raise ValueError("the meter is upside down")


@trunkline.sync("blocking-failing")
def fail_in_thread(record: trunkline.Record, job: trunkline.BlockingSyncJob) -> None:
    raise KeyError("serial")


@trunkline.sync("exiting")
async def leave(record: trunkline.Record, job: trunkline.SyncJob) -> None:
    raise SystemExit(3)


@trunkline.sync("blocking-exiting")
def leave_in_thread(record: trunkline.Record, job: trunkline.BlockingSyncJob) -> None:
    raise SystemExit(3)


@trunkline.sync("cancelled")
async def cancel(record: trunkline.Record, job: trunkline.SyncJob) -> None:
    raise asyncio.CancelledError


@trunkline.sync("no-utf8")
async def speak_no_utf8(record: trunkline.Record, job: trunkline.SyncJob) -> None:
    """As an error about a file whose name is no UTF-8 does."""
    job.log("reading caf\udce9")
    raise FileNotFoundError("caf\udce9")


@trunkline.sync("no-json")
async def save_no_json(record: trunkline.Record, job: trunkline.SyncJob) -> None:
    await job.save({"good": 1})
    await job.save({"bad": object()})
