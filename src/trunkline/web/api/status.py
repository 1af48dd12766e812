"""The node in figures."""

from fastapi import APIRouter

import trunkline
from trunkline.app import Node
from trunkline.web.schemas import Status

__all__ = ["status_routes"]


def status_routes(node: Node) -> APIRouter:
    """``/status``."""
    router = APIRouter(tags=["node"])

    @router.get("/status")
    async def status() -> Status:
        """The node in figures."""
        total, online = await node.count_devices()
        batches_stored, items_stored = node.storage.stored
        return Status(
            node=node.id,
            version=trunkline.__version__,
            started_at=node.started_at,
            devices_online=online,
            devices_total=total,
            commands_open=await node.commands.count_open(),
            jobs_running=node.engine.running,
            items_spooled=node.storage.spooled,
            items_stored=items_stored,
            batches_stored=batches_stored,
            open_access=True,
        )

    return router
