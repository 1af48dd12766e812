"""One error shape for the whole API: problem details, RFC 9457, with a member ``next`` that says what to do."""

import logging
import re
from collections.abc import Mapping

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from trunkline.errors import BadItems, NotFound, Overloaded, StorageError, TrunklineError, Unavailable, UsageError
from trunkline.logs import event
from trunkline.stats import Stats

__all__ = ["Problem", "add_problem_handlers", "problem", "refused"]

_log = logging.getLogger(__name__)

# The first that fits: status, title, what to do next.
_KINDS: list[tuple[type[Exception], int, str, str]] = [
    (NotFound, 404, "Not found", "check the name against the list that it should be in"),
    (BadItems, 422, "Not a list of items", "send a JSON list, as in [1, 2, 3]; nothing of this one was stored"),
    (UsageError, 422, "The request can't be carried out", "correct the request; asking again as it is won't help"),
    (Overloaded, 429, "Too much at once", "nothing was accepted; try again after the seconds in Retry-After"),
    (StorageError, 503, "The database refused", "nothing was accepted; see the node's log, and try again later"),
    (Unavailable, 503, "Not available now", "try again later"),
]


class Problem(BaseModel):
    """What went wrong, to what, and what to do next (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    next: str


def problem(status: int, title: str, detail: str, next_step: str, headers: Mapping[str, str] | None = None) -> Response:
    """A response with problem details."""
    slug = re.sub(r"[^a-z]+", "-", title.lower()).strip("-")
    body = {
        "type": f"urn:trunkline:problem:{slug}", "title": title, "status": status, "detail": detail, "next": next_step,
    }  # fmt: skip
    return Response(
        msgspec.json.encode(body), status, headers=dict(headers or {}), media_type="application/problem+json"
    )


def refused(stats: Stats, status: int, method: str, path: str, detail: str) -> None:
    """Counts and logs a request that was refused."""
    stats.bad_input.labels(f"http_{status}").inc()
    event(_log, logging.WARNING, "bad input", kind=f"http_{status}", method=method, path=path, error=detail)


def add_problem_handlers(app: FastAPI, stats: Stats) -> None:
    """Has every error of the API answered as problem details, and bad input counted."""

    async def of_trunkline(request: Request, error: Exception) -> Response:
        for kind, status, title, next_step in _KINDS:
            if isinstance(error, kind):
                refused(stats, status, request.method, request.url.path, str(error))
                return problem(status, title, str(error), next_step, {"Retry-After": "1"} if status >= 429 else None)
        raise error

    async def of_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        refused(stats, 422, request.method, request.url.path, str(error.errors()[:1]))
        if error.body is not None and "json" not in request.headers.get("content-type", ""):
            return problem(
                422, "The request can't be carried out", "the body is not said to be JSON",
                "send it with the header Content-Type: application/json",
            )  # fmt: skip
        faults = [
            f"{'.'.join(str(part) for part in fault['loc'][1:]) or 'body'}: {fault['msg']}" for fault in error.errors()
        ]
        return problem(
            422, "The request can't be carried out", "; ".join(faults[:5]), "correct the request as the detail says"
        )

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code < 400:
            return Response(status_code=error.status_code, headers=error.headers)
        refused(stats, error.status_code, request.method, request.url.path, str(error.detail))
        return problem(
            error.status_code, "The request can't be answered",
            f"{request.method} {request.url.path}: {error.detail}",
            "see /api/v1/openapi.json for what there is", error.headers,
        )  # fmt: skip

    async def of_bug(request: Request, error: Exception) -> Response:
        _log.error("request failed", exc_info=error, extra={"facts": {"path": request.url.path}})
        return problem(500, "The node failed", "an unexpected error; the node's log has it", "report it with that log")

    app.add_exception_handler(TrunklineError, of_trunkline)
    app.add_exception_handler(RequestValidationError, of_validation)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(Exception, of_bug)
