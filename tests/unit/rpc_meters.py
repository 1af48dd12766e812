"""A service with every kind of method and many types, for the tests of what is made from a service."""

import datetime
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import msgspec

from trunkline.errors import RpcError
from trunkline.rpc import CallContext, Service

SERVICE = Service()


class Reading(msgspec.Struct, frozen=True):
    meter: str
    volts: float


class NoSuchMeter(RpcError):
    """There is no such meter."""


@SERVICE.method(idempotent=True, errors=(NoSuchMeter,))
def read(meter: str, phase: Literal["a", "b"] = "a") -> Reading:
    """Reads a meter.

    It says \"\"\"volts\"\"\" and C:\\new.
    """
    return Reading(meter, 230.0 if phase == "a" else 231.0)


@SERVICE.method
async def switch(context: CallContext, meter: str, on: bool, at: datetime.datetime | None = None) -> None:
    assert context.method == "switch"


@SERVICE.method
def odd_defaults(a: int = 1, b: Reading = Reading("x", 1.0), c: float = 2.5) -> dict[str, list[int | None]]:  # noqa: B008
    return {str(b.meter): [a, int(c), None]}


@SERVICE.method(blocking=True)
def checked(count: Annotated[int, msgspec.Meta(ge=0)]) -> tuple[int, ...]:
    return (count,)


@SERVICE.method
async def watch(meters: list[str], times: int = 2) -> AsyncIterator[Reading]:
    for _ in range(times):
        for meter in meters:
            yield Reading(meter, 230.0)


@SERVICE.method
async def store(place: str, readings: AsyncIterator[Reading]) -> int:
    return len([reading async for reading in readings])


@SERVICE.method
def anything(value: Any) -> Any:
    return value
