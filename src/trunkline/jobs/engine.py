"""The ports of jobs: what runs them, and how they reach devices."""

from typing import Protocol

__all__ = ["DevicePort", "Engine"]


class Engine(Protocol):
    """Runs the jobs that are queued."""

    async def start(self) -> None:
        """Takes up what an earlier process left, and begins to run jobs."""

    def wake(self) -> None:
        """A job was queued. Never waits. Reactor's thread."""

    @property
    def running(self) -> int:
        """Jobs that run now."""

    async def stop(self, deadline: float) -> None:
        """Begins no more jobs; within `deadline` seconds the running ones have ended or are queued again."""


class DevicePort(Protocol):
    """How a handler reaches a device."""

    async def ask(self, device: str, cmd: str, *, timeout: float | None = None) -> str:
        """Sends a command and returns the device's reply.

        Args:
            device: the device's id.
            cmd: the command's text.
            timeout: seconds to wait for the reply after the write; None for the default.

        Raises:
            NoReply: the command ended otherwise, or not in time.
            NotFound: no such device.
        """
