"""The HTTP API and the console, over the parts of one node."""

from trunkline.web.server import HttpServer, create_app

__all__ = ["HttpServer", "create_app"]
