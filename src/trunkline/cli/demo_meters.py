"""The demo's sync handler: reads a simulated meter page by page through the gateway, and writes what it read."""

import json

import trunkline

__all__ = ["sync_meter"]


@trunkline.sync("meter")
async def sync_meter(record: trunkline.Record, job: trunkline.SyncJob) -> None:
    """Reads all pages of the device that bears the record's id."""
    pages = int(await job.ask(record.id, "PAGES"))
    job.log(f"{record.id} has {pages} pages")
    for page in range(1, pages + 1):
        readings: dict[str, float] = json.loads(await job.ask(record.id, f"PAGE {page}"))
        await job.save({f"reading {int(number):03}": value for number, value in readings.items()})
        job.log(f"page {page}: {len(readings)} readings written")
        job.progress(page, pages)
