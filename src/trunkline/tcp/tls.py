"""TLS: contexts with safe defaults, certificates that are replaced while connections live, and who the peer is."""

import hashlib
import os
import ssl
from typing import Any

import msgspec

from trunkline.errors import SettingsError
from trunkline.tcp.certificates import file_ids, load_authorities, load_own

__all__ = ["ClientTls", "ServerTls", "TlsInfo", "TlsReloader", "tls_info"]

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class ServerTls(msgspec.Struct, frozen=True):
    """TLS as a server. All files are PEM."""

    certificate: str | os.PathLike[str]
    """The file of the server's certificate, followed by those between it and its authority."""
    key: str | os.PathLike[str] | None = None
    """The file of its private key, not encrypted; None where the certificate's file holds it too."""
    client_ca: str | os.PathLike[str] | None = None
    """The file of the authorities whose certificates clients may show; None: clients are not asked for one."""
    require_client: bool | None = None
    """Whether a client without a certificate is refused; None: yes, where `client_ca` is given."""
    alpn: tuple[str, ...] = ()
    """Application protocols (RFC 7301), the preferred one first."""
    minimum: str = "1.2"
    """The oldest version of TLS that is spoken: ``1.2`` or ``1.3``."""

    def context(self) -> ssl.SSLContext:
        """A new context from what the files hold now. Reads files; any thread.

        Raises:
            SettingsError: a file is missing, unreadable, expired, or does not match; one line that names it.
        """
        context = _new_context(ssl.PROTOCOL_TLS_SERVER, self.minimum, self.alpn)
        load_own(context, self.certificate, self.key)
        if self.client_ca is not None:
            load_authorities(context, "client_ca", self.client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL if self.require_client is False else ssl.CERT_REQUIRED
        elif self.require_client:
            raise SettingsError("require_client = true: it needs client_ca, the authorities to check clients against")
        return context

    def file_ids(self) -> list[tuple[int, int, int] | None]:
        """What tells the files from those that replace them. Any thread."""
        return file_ids(self.certificate, self.key, self.client_ca)


class ClientTls(msgspec.Struct, frozen=True):
    """TLS as a client. The server's certificate and name are always checked. All files are PEM."""

    ca: str | os.PathLike[str] | None = None
    """The file of the authorities that are trusted; None for the system's. A self-signed server's own certificate
    works here too."""
    certificate: str | os.PathLike[str] | None = None
    """The file of this client's certificate, where the server asks for one."""
    key: str | os.PathLike[str] | None = None
    """The file of its private key, not encrypted; None where the certificate's file holds it too."""
    alpn: tuple[str, ...] = ()
    """Application protocols (RFC 7301), the preferred one first."""
    server_hostname: str | None = None
    """The name or address that the server's certificate must be for; None for the host that is connected to."""
    minimum: str = "1.2"
    """The oldest version of TLS that is spoken: ``1.2`` or ``1.3``."""

    def context(self) -> ssl.SSLContext:
        """A new context from what the files hold now. Reads files; any thread.

        Raises:
            SettingsError: a file is missing, unreadable, expired, or does not match; one line that names it.
        """
        context = _new_context(ssl.PROTOCOL_TLS_CLIENT, self.minimum, self.alpn)
        if self.ca is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            load_authorities(context, "ca", self.ca)
        if self.certificate is not None:
            load_own(context, self.certificate, self.key)
        elif self.key is not None:
            raise SettingsError(f'key = "{os.fspath(self.key)}": it needs the certificate that it belongs to')
        return context

    def file_ids(self) -> list[tuple[int, int, int] | None]:
        """What tells the files from those that replace them. Any thread."""
        return file_ids(self.ca, self.certificate, self.key)


class TlsReloader:
    """A context that follows its files: what is replaced on disk holds for every handshake after `reload`.

    Connections that are up stay as they are. Each new one gets one whole context, from either before or after: its
    certificate and its authorities are never mixed, and a session from before can't be resumed past new authorities.
    If the new files are bad, the old context stays in use.

    Args:
        options: what to make the context of.

    Raises:
        SettingsError: as for `ServerTls.context`.
    """

    def __init__(self, options: ServerTls | ClientTls) -> None:
        self._options = options
        self._loaded = self._options.file_ids()
        current = options.context()
        self._context = _LiveContext(current.protocol)
        self._context.current = current

    @property
    def context(self) -> ssl.SSLContext:
        """To hand to whatever takes a context, once. Its own attributes must not be changed: they mean nothing."""
        return self._context

    def reload(self) -> None:
        """Reads the files again. Any thread; in the reactor it costs it a few milliseconds.

        Raises:
            SettingsError: a file is bad; the old context stays in use.
        """
        loaded = self._options.file_ids()
        self._context.current = self._options.context()
        self._loaded = loaded

    def reload_if_changed(self) -> bool:
        """Reads the files again if one has been replaced since. Costs one look at each; any thread.

        Returns:
            Whether there was anything new.

        Raises:
            SettingsError: a file is bad; the old context stays in use, and the next call tries again.
        """
        if self._options.file_ids() == self._loaded:
            return False
        self.reload()
        return True


class _LiveContext(ssl.SSLContext):
    """Hands each new connection to the context that is current.

    The other ways fail: `load_cert_chain` on a context in use leaves it with half of a pair that does not match, no
    authority can be taken out of it, and neither that nor an `sni_callback` ends the sessions that it has issued.
    asyncio and uvloop call `wrap_bio` once for each connection.
    """

    current: ssl.SSLContext

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return self.current.wrap_bio(*args, **kwargs)

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        return self.current.wrap_socket(*args, **kwargs)


class TlsInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What was agreed in a handshake, and who the peer has proved to be.

    The last four are None or empty if the peer showed no certificate. What stands in one that it showed was signed by
    an authority of ours; it is still the peer's text, to be escaped where it is shown.
    """

    version: str
    """``TLSv1.2`` or ``TLSv1.3``."""
    cipher: str
    """The cipher suite's name."""
    alpn: str | None
    """The application protocol; None if none was agreed."""
    common_name: str | None = None
    """The last, which is the most specific, common name of the certificate's subject."""
    alternative_names: tuple[str, ...] = ()
    """Its subject alternative names, each with its kind: ``DNS:meter-7.example``, ``URI:urn:meter:7``."""
    fingerprint: str | None = None
    """The SHA-256 of the certificate in hex digits."""
    not_after: float | None = None
    """When it expires, in seconds since 1970-01-01 UTC."""


def tls_info(ssl_object: ssl.SSLObject | ssl.SSLSocket | None) -> TlsInfo | None:
    """What a connection's handshake has agreed. Any thread.

    Args:
        ssl_object: ``transport.get_extra_info("ssl_object")``.

    Returns:
        None for a connection without TLS, or whose handshake is not done.
    """
    cipher = ssl_object.cipher() if ssl_object is not None else None
    if ssl_object is None or cipher is None:
        return None
    version, alpn = ssl_object.version() or "", ssl_object.selected_alpn_protocol()
    der = ssl_object.getpeercert(binary_form=True)
    peer: dict[str, Any] = ssl_object.getpeercert() or {}
    if der is None or not peer:
        return TlsInfo(version=version, cipher=cipher[0], alpn=alpn)
    common_names = [value for group in peer.get("subject", ()) for name, value in group if name == "commonName"]
    return TlsInfo(
        version=version,
        cipher=cipher[0],
        alpn=alpn,
        common_name=common_names[-1] if common_names else None,
        # A directory name comes as nested tuples, which nobody matches by its text.
        alternative_names=tuple(
            f"{kind}:{value}" for kind, value in peer.get("subjectAltName", ()) if isinstance(value, str)
        ),
        fingerprint=hashlib.sha256(der).hexdigest(),
        not_after=float(ssl.cert_time_to_seconds(peer["notAfter"])),
    )


def _new_context(protocol: int, minimum: str, alpn: tuple[str, ...]) -> ssl.SSLContext:
    if minimum not in _VERSIONS:
        raise SettingsError(f'minimum = "{minimum}": there are {" and ".join(_VERSIONS)}')
    context = ssl.SSLContext(protocol)
    context.minimum_version = _VERSIONS[minimum]
    # Compression tells secrets by its lengths (CRIME); a peer that negotiates anew again and again costs us the CPU.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if alpn:
        try:
            context.set_alpn_protocols(list(alpn))
        except (ssl.SSLError, ValueError):
            raise SettingsError(f"alpn = {list(alpn)}: each must be 1 to 255 characters of ASCII") from None
    return context
