"""Items to store, and the batches that were stored."""

from fastapi import APIRouter, Request

from trunkline.app import Node
from trunkline.web.api.paging import Cursor, Limit, split_page
from trunkline.web.schemas import BatchPage, BatchView, Stored

__all__ = ["storage_routes"]

_BODY = {"content": {"application/json": {"schema": {"type": "array", "items": {}}}}, "required": True}


def storage_routes(node: Node) -> APIRouter:
    """``/items`` and ``/batches``."""
    router = APIRouter(tags=["storage"])

    @router.post("/items", openapi_extra={"requestBody": _BODY})
    async def store_items(request: Request) -> Stored:
        """Stores a JSON list of items. When it answers, all of them are on disk, and will be in one batch each."""
        return Stored(stored=await node.storage.accept(await request.body()))

    @router.get("/batches")
    async def list_batches(limit: Limit = 20, before: Cursor = None) -> BatchPage:
        """Batches, newest first."""
        found = await node.storage.page(limit=limit + 1, before=before)
        page, last = split_page(found, limit)
        return BatchPage(
            items=[BatchView.of(batch) for batch in page],
            next=last.id if last else None,
            spooled=node.storage.spooled,
        )

    return router
