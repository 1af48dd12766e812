"""How commands reach a node that runs: its HTTP API."""

from pathlib import Path
from typing import Any

import httpx

from trunkline.errors import NotFound, Overloaded, Unavailable, UsageError
from trunkline.settings import load_settings

__all__ = ["NodeClient"]


class NodeClient:
    """A small blocking client of the API.

    Args:
        url: the node's address; None for the one in the settings.
        config: the settings' file.
        timeout: seconds for one answer.
    """

    def __init__(self, url: str | None = None, config: Path | None = None, timeout: float = 10.0) -> None:
        if url is None:
            http = load_settings(config).http
            host = f"[{http.host}]" if ":" in http.host else http.host
            url = f"http://{host}:{http.port}"
        self.url = url.rstrip("/")
        self._client = httpx.Client(base_url=self.url, timeout=timeout, trust_env=False)

    def request(self, method: str, path: str, **options: Any) -> Any:
        """One request; the decoded answer.

        Raises:
            Unavailable: no node answers there, or it can't just now.
            UsageError: the node refused the request; the text is the node's.
        """
        try:
            response = self._client.request(method, f"/api/v1{path}", **options)
            if response.is_success:
                return response.json() if response.content else None
            detail = str(response.json()["detail"])
        except httpx.TransportError as error:
            raise Unavailable(f"no node answers at {self.url} ({error}); start one with: trunkline serve") from None
        except (ValueError, KeyError, TypeError):
            raise Unavailable(f"what answers at {self.url} is no Trunkline node") from None
        kinds: dict[int, type[UsageError | Unavailable]] = {404: NotFound, 429: Overloaded}
        kind = kinds.get(response.status_code, Unavailable if response.status_code >= 500 else UsageError)
        raise kind(detail)

    def close(self) -> None:
        """Closes its connections."""
        self._client.close()
