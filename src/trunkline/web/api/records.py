"""Records, and asking for their sync."""

from fastapi import APIRouter

from trunkline.app import Node
from trunkline.web.api.paging import Cursor, Limit, split_page
from trunkline.web.schemas import JobView, NewRecord, RecordPage, RecordView, RecordWithEntries, SyncStarted

__all__ = ["record_routes"]


def record_routes(node: Node) -> APIRouter:
    """``/records``."""
    router = APIRouter(tags=["records"])

    @router.get("/records")
    async def list_records(limit: Limit = 100, after: Cursor = None) -> RecordPage:
        """The records, by type and id."""
        # Neither a type nor an id can hold a slash, so one can stand between them.
        record_type, _, record = (after or "").partition("/")
        found = await node.records.page(limit=limit + 1, after=(record_type, record) if after else None)
        page, last = split_page(found, limit)
        return RecordPage(
            items=[RecordView.of(one) for one in page],
            next=f"{last.type}/{last.id}" if last else None,
            total=await node.records.count(),
        )

    @router.put("/records/{record_type}/{record}")
    async def put_record(record_type: str, record: str, new: NewRecord) -> RecordView:
        """Adds a record, or gives it another title."""
        await node.records.put(record_type, record, new.title)
        return RecordView.of((await node.records.get(record_type, record))[0])

    @router.get("/records/{record_type}/{record}")
    async def get_record(record_type: str, record: str) -> RecordWithEntries:
        """A record, and what was read of it."""
        return RecordWithEntries.with_entries(*await node.records.get(record_type, record))

    @router.post("/records/{record_type}/{record}/sync", status_code=202)
    async def sync_record(record_type: str, record: str) -> SyncStarted:
        """Has a record synced; a second request joins the job that is under way. 202: the job is on disk."""
        job, joined = await node.jobs.sync(record_type, record)
        return SyncStarted(job=JobView.of(job), joined=joined)

    return router
