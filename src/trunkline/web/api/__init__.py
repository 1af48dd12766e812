"""The routes under ``/api/v1``."""

from fastapi import APIRouter

from trunkline.app import Node
from trunkline.web.api.commands import command_routes
from trunkline.web.api.devices import device_routes
from trunkline.web.api.jobs import job_routes
from trunkline.web.api.records import record_routes
from trunkline.web.api.status import status_routes
from trunkline.web.api.storage import storage_routes

__all__ = ["api_routes"]


def api_routes(node: Node) -> APIRouter:
    """All routes of the API over one node."""
    router = APIRouter(prefix="/api/v1")
    for routes in (status_routes, device_routes, command_routes, record_routes, job_routes, storage_routes):
        router.include_router(routes(node))
    return router
