"""Jobs, and the live events of each."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from trunkline.app import Node
from trunkline.errors import UsageError
from trunkline.jobs import JobEvent
from trunkline.web.api.paging import Cursor, Limit, split_page
from trunkline.web.schemas import JobPage, JobView, moment

__all__ = ["job_routes"]

_KEEP_ALIVE_INTERVAL = 15.0  # seconds: proxies drop a response that is silent for a minute
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-sent events", "content": {"text/event-stream": {}}},
    204: {"description": "The job has ended, and all its events were seen"},
}


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

    @router.get("/jobs/{job_id}/events", response_class=StreamingResponse, responses=_EVENTS)
    async def follow_job(job_id: str, after: Annotated[int, Depends(cursor)]) -> StreamingResponse:
        """The job's log, progress and states, live, from any Last-Event-ID; it ends after the job's outcome."""
        return StreamingResponse(
            _stream(node.jobs.follow(job_id, after)),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    return router


async def _stream(entries: AsyncGenerator[JobEvent, None]) -> AsyncGenerator[str, None]:
    """Entries as server-sent events, and a comment whenever there was none for some time.

    FastAPI's own response class is not used: it logs a traceback for each follower that leaves.
    """
    coming: asyncio.Task[JobEvent | None] | None = None
    try:
        while True:
            if coming is None:
                coming = asyncio.ensure_future(_next(entries))
            await asyncio.wait({coming}, timeout=_KEEP_ALIVE_INTERVAL)
            if not coming.done():
                yield ": nothing new\n\n"
                continue
            entry, coming = coming.result(), None
            if entry is None:
                return
            data = msgspec.json.encode({"n": entry.n, "at": moment(entry.at), **entry.data}).decode()
            yield f"id: {entry.n}\nevent: {entry.kind}\ndata: {data}\n\n"
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait({coming})
        await entries.aclose()


async def _next(entries: AsyncGenerator[JobEvent, None]) -> JobEvent | None:
    return await anext(entries, None)
