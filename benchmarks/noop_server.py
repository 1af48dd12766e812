"""The floor: the node's HTTP stack (FastAPI, the same guard, models and server options) with handlers that do nothing.

usage: python benchmarks/noop_server.py PORT
"""

import sys
import time

import uvicorn
from fastapi import FastAPI, Request, Response

from trunkline.stats import Stats
from trunkline.web.api.devices import Wait
from trunkline.web.guard import LoopbackGuard
from trunkline.web.problems import add_problem_handlers
from trunkline.web.schemas import CommandView, NewCommand, Stored

app = FastAPI(max_body_size=1_048_576)
stats = Stats()
add_problem_handlers(app, stats)
app.add_middleware(LoopbackGuard, stats=stats, requests_limit=1000)


@app.post("/api/v1/devices/{device}/commands", status_code=202)
async def send_command(device: str, new: NewCommand, response: Response, wait: Wait = None) -> CommandView:
    """Accepts a command and forgets it."""
    now = time.time()
    response.status_code = 200
    return CommandView(
        id="01M7Y83G5FT759TXRX035AVCTY", device=device, cmd=new.cmd, state="replied", states=[], reply="", reason=None,
        timeout=10, ttl=60, expires_at=now, writes=1, late_reply=None,
    )  # fmt: skip


@app.post("/api/v1/items")
async def store_items(request: Request) -> Stored:
    """Takes items and forgets them."""
    return Stored(stored=len(await request.body()))


if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=int(sys.argv[1]), log_config=None, access_log=False, server_header=False,
    backlog=1024,
    )  # fmt: skip
