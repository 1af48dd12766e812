"""Jobs, and the live events of each."""

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException

from trunkline.app import Node
from trunkline.errors import UsageError
from trunkline.web.api.paging import Cursor, Limit, split_page
from trunkline.web.schemas import JobPage, JobView, moment

__all__ = ["job_routes"]


def job_routes(node: Node) -> APIRouter:
    """``/jobs``."""
    router = APIRouter(tags=["jobs"])

    @router.get("/jobs")
    async def list_jobs(limit: Limit = 100, before: Cursor = None) -> JobPage:
        """Jobs, newest first."""
        found = await node.jobs.page(limit=limit + 1, before=before)
        page, last = split_page(found, limit)
        return JobPage(
            items=[JobView.of(job) for job in page], next=last.id if last else None, total=await node.jobs.count()
        )

    @router.get("/jobs/{job_id}")
    async def get_job(job_id: str) -> JobView:
        """A job as it stands."""
        return JobView.of(await node.jobs.get(job_id))

    async def cursor(
        job_id: str, last_event_id: Annotated[str | None, Header(description="the last event that was seen")] = None
    ) -> int:
        if last_event_id and not (last_event_id.isascii() and last_event_id.isdecimal() and len(last_event_id) < 16):
            raise UsageError(f"Last-Event-ID = {last_event_id[:40]!r}: it must be the number of an event")
        after = int(last_event_id or 0)
        if not await node.jobs.has_events(job_id, after):
            raise HTTPException(204)  # which tells an EventSource not to come back
        return after

    @router.get("/jobs/{job_id}/events", response_class=EventSourceResponse)
    async def follow_job(job_id: str, after: Annotated[int, Depends(cursor)]) -> AsyncIterator[ServerSentEvent]:
        """The job's log, progress and states, live, from any Last-Event-ID; it ends after the job's outcome."""
        async for entry in node.jobs.follow(job_id, after):
            data = {"n": entry.n, "at": moment(entry.at), **entry.data}
            yield ServerSentEvent(raw_data=msgspec.json.encode(data).decode(), event=entry.kind, id=str(entry.n))

    return router
