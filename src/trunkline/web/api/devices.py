"""Devices, and the commands that they are sent."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from trunkline.app import Node
from trunkline.errors import NotFound
from trunkline.gateway import OPEN_STATES, read_devices
from trunkline.web.api.paging import Cursor, Limit, split_page
from trunkline.web.schemas import CommandPage, CommandView, DevicePage, DeviceView, NewCommand

__all__ = ["device_routes"]

LONGEST_WAIT = 300.0
Wait = Annotated[float | None, Query(gt=0, le=LONGEST_WAIT, description="seconds to wait for the outcome")]


def device_routes(node: Node) -> APIRouter:
    """``/devices``."""
    router = APIRouter(tags=["devices"])

    @router.get("/devices")
    async def list_devices(limit: Limit = 100, after: Cursor = None) -> DevicePage:
        """The devices that have ever said hello, by id."""
        now = node.clock.time()
        found = await node.database.read(
            lambda connection: read_devices(connection, now, after=after or "", limit=limit + 1)
        )
        total, online = await node.count_devices()
        page, last = split_page(found, limit)
        return DevicePage(
            items=[DeviceView.of(device) for device in page], next=last.id if last else None, total=total, online=online
        )

    @router.get("/devices/{device}")
    async def get_device(device: str) -> DeviceView:
        """One device."""
        now = node.clock.time()
        found = await node.database.read(lambda connection: read_devices(connection, now, device=device))
        if not found:
            raise NotFound(f'no device "{device}" has ever said hello here')
        return DeviceView.of(found[0])

    @router.post("/devices/{device}/commands", status_code=202, responses={200: {"model": CommandView}})
    async def send_command(device: str, new: NewCommand, response: Response, wait: Wait = None) -> CommandView:
        """Sends a command. 202: it is on disk and will have an outcome. 200: it has one, within the time of `wait`."""
        if wait is None:
            command = await node.commands.send(device, new.cmd, timeout=new.timeout, ttl=new.ttl)
        else:
            command = await node.commands.send_and_wait(device, new.cmd, wait=wait, timeout=new.timeout, ttl=new.ttl)
        if command.state not in OPEN_STATES:
            response.status_code = 200
        return CommandView.of(command)

    @router.get("/devices/{device}/commands")
    async def list_commands(device: str, limit: Limit = 20, before: Cursor = None) -> CommandPage:
        """The commands of a device, newest first."""
        found = await node.commands.of_device(device, limit=limit + 1, before=before)
        page, last = split_page(found, limit)
        return CommandPage(items=[CommandView.of(command) for command in page], next=last.id if last else None)

    return router
