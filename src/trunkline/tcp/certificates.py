"""Certificates and keys in PEM files, and what is wrong with one, in a line that names it."""

import datetime
import json
import os
import ssl
import time
from pathlib import Path
from typing import NoReturn

from trunkline.errors import SettingsError

__all__ = ["file_ids", "load_authorities", "load_own"]

_FILE_LIMIT_BYTES = 8_388_608  # many times the bundle of all public authorities


def load_own(context: ssl.SSLContext, certificate: str | os.PathLike[str], key: str | os.PathLike[str] | None) -> None:
    """Loads the certificate of this side, and its key. Reads files; any thread.

    Args:
        context: where to.
        certificate: the file of the certificate and those between it and its authority.
        key: the file of its key; None where the certificate's file holds it too.

    Raises:
        SettingsError: a file is missing or can't be read, the certificate has expired, or the key is not its key.
    """
    pem = _read("certificate", certificate, "CERTIFICATE")
    key_name, key_path = ("certificate", certificate) if key is None else ("key", key)
    _read(key_name, key_path, "PRIVATE KEY")
    try:
        context.load_cert_chain(certificate, key_path, password=lambda: _encrypted(key_name, key_path))
    except OSError as error:  # ssl.SSLError is one
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise _bad(key_name, key_path, f"it is not the key of {os.fspath(certificate)}") from None
        raise _bad("certificate", certificate, f"OpenSSL can't read it or its key: {_reason(error)}") from None
    try:
        expires_at = _expires_at(pem)
    except (ValueError, IndexError):
        raise _bad("certificate", certificate, "it does not say when it expires, as RFC 5280 wants it") from None
    if expires_at.timestamp() <= time.time():
        raise _bad("certificate", certificate, f"it expired on {expires_at:%Y-%m-%d %H:%M:%S} UTC; renew it")


def load_authorities(context: ssl.SSLContext, name: str, path: str | os.PathLike[str]) -> None:
    """Adds authorities to those that a peer's certificate may come from. Reads files; any thread.

    Args:
        context: where to.
        name: what the file is called in errors.
        path: the file.

    Raises:
        SettingsError: the file is missing or can't be read.
    """
    _read(name, path, "CERTIFICATE")
    try:
        context.load_verify_locations(cafile=path)
    except OSError as error:
        raise _bad(name, path, f"OpenSSL can't read it: {_reason(error)}") from None


def file_ids(*paths: str | os.PathLike[str] | None) -> list[tuple[int, int, int] | None]:
    """What tells files from those that replace them; None for one that is not there. Any thread."""
    return [_file_id(path) for path in paths if path is not None]


def _file_id(path: str | os.PathLike[str]) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(name: str, path: str | os.PathLike[str], kind: str) -> str:
    """The text of a PEM file, which has to hold a block of that kind."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(_FILE_LIMIT_BYTES).decode("ascii", "ignore")
    except (OSError, ValueError) as error:
        raise _bad(name, path, _reason(error).lower()) from None
    if f"{kind}-----" not in text:
        raise _bad(name, path, f"there is no {kind.lower()} in PEM form in it")
    return text


def _expires_at(pem: str) -> datetime.datetime:
    """When the first certificate of a file that OpenSSL has read expires: RFC 5280, section 4.1."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    start = pem.index(begin)
    der = ssl.PEM_cert_to_DER_cert(pem[start : pem.index(end, start) + len(end)])
    ((_, certificate),) = _elements(der)
    fields = [content for tag, content in _elements(_elements(certificate)[0][1]) if tag != 0xA0]  # no version
    tag, content = _elements(fields[3])[1]
    text = content.decode()
    if tag == 0x17:  # UTCTime has two digits for the year
        text = ("19" if text >= "50" else "20") + text
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)


def _elements(der: bytes) -> list[tuple[int, bytes]]:
    """The elements that follow each other in DER, as tag and content: X.690, section 8.1."""
    found, at = [], 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length > 0x7F:  # so many bytes of length follow
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size], "big"), at + size
        found.append((tag, der[at : at + length]))
        at += length
    return found


def _encrypted(name: str, path: str | os.PathLike[str]) -> NoReturn:
    # Without this, OpenSSL asks for the passphrase on the terminal, and waits.
    raise _bad(name, path, "the key is encrypted; decrypt it, and keep the file from others (chmod 600)")


def _bad(name: str, path: str | os.PathLike[str], text: str) -> SettingsError:
    return SettingsError(f"{name} = {json.dumps(os.fspath(path))}: {text}")


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
