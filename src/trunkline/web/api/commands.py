"""Commands by id."""

from fastapi import APIRouter

from trunkline.app import Node
from trunkline.web.schemas import CommandView

__all__ = ["command_routes"]


def command_routes(node: Node) -> APIRouter:
    """``/commands``."""
    router = APIRouter(tags=["commands"])

    @router.get("/commands/{command_id}")
    async def get_command(command_id: str) -> CommandView:
        """A command as it stands, with its states and their times."""
        return CommandView.of(await node.commands.get(command_id))

    return router
