"""TLS contexts: real certificates, real handshakes over loopback."""

import asyncio
import contextlib
import hashlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import SettingsError
from trunkline.reactor import Reactor
from trunkline.tcp.tls import ClientTls, ServerTls, TlsInfo, TlsReloader, tls_info

WAIT = 20.0


def openssl(*arguments: object) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


class Authority:
    """A certificate authority in a folder of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.file, self.key = folder / f"{name}.pem", folder / f"{name}.key"
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 30,
            "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.file,
        )  # fmt: skip

    def issue(self, name: str, names: str = "DNS:localhost,IP:127.0.0.1", days: int = 30) -> tuple[Path, Path]:
        """A certificate and its key."""
        certificate, key, request, extensions = (
            self.folder / f"{self.name}-{name}.{ending}" for ending in ("pem", "key", "csr", "cnf")
        )
        extensions.write_text(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n")
        openssl(
            "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", f"/O=Works/CN={name}", "-keyout", key, "-out", request,
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self.key, "-CAcreateserial", "-days", days,
            "-extfile", extensions, "-out", certificate,
        )  # fmt: skip
        return certificate, key


class Works:
    """All the certificates of these tests."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.other_ca = Authority(folder, "ca"), Authority(folder, "other")
        self.server, self.server_key = self.ca.issue("server")
        self.second, self.second_key = self.ca.issue("second")
        self.meter, self.meter_key = self.ca.issue("meter-7", "DNS:meter-7.example,URI:urn:meter:7")
        self.stranger, self.stranger_key = self.other_ca.issue("stranger")
        self.old, self.old_key = self.ca.issue("old", days=-1)


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Works:
    return Works(tmp_path_factory.mktemp("works"))


@contextlib.contextmanager
def serving(context: ssl.SSLContext) -> Iterator[int]:
    """A server in a thread that echoes what comes, on each of its connections, until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(WAIT)
    threads: list[threading.Thread] = []
    served: list[ssl.SSLSocket] = []

    def echo(plain: socket.socket) -> None:
        plain.settimeout(WAIT)
        with plain:
            try:
                with context.wrap_socket(plain, server_side=True) as tls:
                    served.append(tls)
                    while data := tls.recv(100):
                        tls.sendall(data)
            except OSError:
                pass  # a handshake that fails: the client's side says why

    def accept() -> None:
        while True:
            plain, _ = listener.accept()
            if ended:
                plain.close()
                return
            threads.append(threading.Thread(target=echo, args=(plain,)))
            threads[-1].start()

    ended: list[bool] = []
    threads.append(threading.Thread(target=accept))
    threads[0].start()
    try:
        yield listener.getsockname()[1]
    finally:
        ended.append(True)
        socket.create_connection(listener.getsockname()).close()
        for tls in served:
            with contextlib.suppress(OSError):  # closed already
                socket.socket.shutdown(tls, socket.SHUT_RDWR)
        for thread in threads:
            thread.join(WAIT)
        listener.close()


Connect = Callable[..., ssl.SSLSocket]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connects, says something and hears it back: with TLS 1.3 a refusal shows only then."""
    opened: list[ssl.SSLSocket] = []

    def connect(
        port: int, context: ssl.SSLContext, name: str = "localhost", session: ssl.SSLSession | None = None
    ) -> ssl.SSLSocket:
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as plain:
            tls = context.wrap_socket(plain, server_hostname=name, session=session)
        opened.append(tls)
        tls.sendall(b"hello")
        if tls.recv(100) != b"hello":
            raise ConnectionResetError("the server closed")
        return tls

    yield connect
    for tls in opened:
        tls.close()


def shown(tls: ssl.SSLSocket) -> str | None:
    info = tls_info(tls)
    assert info is not None
    return info.common_name


def test_a_client_that_knows_the_authority_is_served(works: Works, connect: Connect) -> None:
    with serving(ServerTls(works.server, works.server_key).context()) as port:
        tls = connect(port, ClientTls(ca=works.ca.file).context())
        assert tls.version() == "TLSv1.3"
        assert tls.compression() is None
        tls.close()


def test_an_address_in_the_certificate_is_a_name_too(works: Works, connect: Connect) -> None:
    with serving(ServerTls(works.server, works.server_key).context()) as port:
        connect(port, ClientTls(ca=works.ca.file).context(), "127.0.0.1").close()


@pytest.mark.parametrize("ca", ["other", "system"])
def test_a_server_of_an_unknown_authority_is_not_trusted(works: Works, connect: Connect, ca: str) -> None:
    options = ClientTls(ca=works.other_ca.file) if ca == "other" else ClientTls()
    with (
        serving(ServerTls(works.server, works.server_key).context()) as port,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        connect(port, options.context())


def test_a_server_with_another_name_is_not_trusted(works: Works, connect: Connect) -> None:
    with (
        serving(ServerTls(works.server, works.server_key).context()) as port,
        pytest.raises(ssl.SSLCertVerificationError, match=r"bank\.example"),
    ):
        connect(port, ClientTls(ca=works.ca.file).context(), "bank.example")


def test_a_server_whose_certificate_is_over_is_not_trusted(works: Works, connect: Connect) -> None:
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    careless.load_cert_chain(works.old, works.old_key)
    with serving(careless) as port, pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        connect(port, ClientTls(ca=works.ca.file).context())


def test_a_client_shows_who_it_is(works: Works) -> None:
    server = ServerTls(works.server, works.server_key, client_ca=works.ca.file, alpn=("meters", "other"))
    client = ClientTls(ca=works.ca.file, certificate=works.meter, key=works.meter_key, alpn=("unknown", "meters"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seen: list[TlsInfo | None] = []

        def accept() -> None:
            plain, _ = listener.accept()
            with plain, server.context().wrap_socket(plain, server_side=True) as tls:
                seen.append(tls_info(tls))
                tls.sendall(b"welcome")

        thread = threading.Thread(target=accept)
        thread.start()
        with (
            socket.create_connection(listener.getsockname(), timeout=WAIT) as plain,
            client.context().wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            assert tls.recv(100) == b"welcome"
        thread.join(WAIT)
    der = ssl.PEM_cert_to_DER_cert(works.meter.read_text()[works.meter.read_text().index("-----BEGIN") :])
    (info,) = seen
    assert info is not None
    assert (info.version, info.alpn, info.common_name) == ("TLSv1.3", "meters", "meter-7")
    assert info.alternative_names == ("DNS:meter-7.example", "URI:urn:meter:7")
    assert info.fingerprint == hashlib.sha256(der).hexdigest()
    ends = subprocess.run(
        ["openssl", "x509", "-in", works.meter, "-noout", "-enddate"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert info.not_after == ssl.cert_time_to_seconds(ends.removeprefix("notAfter="))
    assert "AES" in info.cipher or "CHACHA" in info.cipher


def test_without_tls_there_is_nothing_to_say() -> None:
    assert tls_info(None) is None


def test_before_the_handshake_is_done_there_is_nothing_to_say(works: Works) -> None:
    context = ServerTls(works.server, works.server_key).context()
    assert tls_info(context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)) is None


def test_a_client_without_a_certificate_is_refused(works: Works, connect: Connect) -> None:
    with (
        serving(ServerTls(works.server, works.server_key, client_ca=works.ca.file).context()) as port,
        pytest.raises(OSError, match=r"certificate required|reset|EOF|closed"),
    ):
        connect(port, ClientTls(ca=works.ca.file).context())


def test_a_client_of_another_authority_is_refused(works: Works, connect: Connect) -> None:
    client = ClientTls(ca=works.ca.file, certificate=works.stranger, key=works.stranger_key)
    with (
        serving(ServerTls(works.server, works.server_key, client_ca=works.ca.file).context()) as port,
        pytest.raises(OSError, match=r"unknown ca|reset|EOF|closed"),
    ):
        connect(port, client.context())


def test_a_certificate_may_be_optional_but_never_wrong(works: Works, connect: Connect) -> None:
    server = ServerTls(works.server, works.server_key, client_ca=works.ca.file, require_client=False)
    stranger = ClientTls(ca=works.ca.file, certificate=works.stranger, key=works.stranger_key)
    with serving(server.context()) as port:
        connect(port, ClientTls(ca=works.ca.file).context()).close()
        with pytest.raises(OSError, match=r"unknown ca|reset|EOF|closed"):
            connect(port, stranger.context())


def test_old_versions_are_refused(works: Works) -> None:
    for context in (ServerTls(works.server, works.server_key).context(), ClientTls().context()):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION
    assert ClientTls(minimum="1.3").context().minimum_version == ssl.TLSVersion.TLSv1_3
    assert ClientTls().context().verify_mode == ssl.CERT_REQUIRED
    assert ClientTls().context().check_hostname


def test_tls_1_2_alone_is_no_match_for_1_3_alone(works: Works, connect: Connect) -> None:
    client = ClientTls(ca=works.ca.file).context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        serving(ServerTls(works.server, works.server_key, minimum="1.3").context()) as port,
        pytest.raises(ssl.SSLError, match=r"protocol|version"),
    ):
        connect(port, client)


def complaint(options: ServerTls | ClientTls) -> str:
    with pytest.raises(SettingsError) as raised:
        options.context()
    text = str(raised.value)
    assert text.isprintable(), "one line"
    return text


def test_a_bad_file_is_named(works: Works, tmp_path: Path) -> None:
    missing, empty, garbage = tmp_path / "no.pem", tmp_path / "empty.pem", tmp_path / "garbage.pem"
    empty.write_text("")
    garbage.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    bad_key = tmp_path / "bad.key"
    bad_key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    good, key, ca = works.server, works.server_key, works.ca.file

    assert complaint(ServerTls(missing, key)) == f'certificate = "{missing}": no such file or directory'
    assert complaint(ServerTls(good, missing)) == f'key = "{missing}": no such file or directory'
    assert complaint(ServerTls(tmp_path, key)) == f'certificate = "{tmp_path}": is a directory'
    assert complaint(ServerTls("a\0b", key)).startswith(r'certificate = "a\u0000b": ')
    assert complaint(ServerTls(empty, key)) == f'certificate = "{empty}": there is no certificate in PEM form in it'
    assert complaint(ServerTls(key, key)) == f'certificate = "{key}": there is no certificate in PEM form in it'
    assert complaint(ServerTls(good)) == f'certificate = "{good}": there is no private key in PEM form in it'
    assert complaint(ServerTls(garbage, key)).startswith(f'certificate = "{garbage}": OpenSSL can\'t read it')
    assert "can't read it or its key" in complaint(ServerTls(good, bad_key))
    assert complaint(ServerTls(good, works.second_key)) == f'key = "{works.second_key}": it is not the key of {good}'
    assert complaint(ServerTls(works.old, works.old_key)).startswith(f'certificate = "{works.old}": it expired on 2')
    assert complaint(ServerTls(good, key, client_ca=missing)) == f'client_ca = "{missing}": no such file or directory'
    assert complaint(ServerTls(good, key, client_ca=garbage)).startswith(f'client_ca = "{garbage}": OpenSSL')
    assert complaint(ClientTls(ca=empty)) == f'ca = "{empty}": there is no certificate in PEM form in it'
    assert complaint(ClientTls(ca=ca, certificate=works.meter, key=key)).startswith(f'key = "{key}": it is not the key')
    assert complaint(ClientTls(key=key)) == f'key = "{key}": it needs the certificate that it belongs to'


@given(st.data())
def test_a_damaged_certificate_is_an_error_with_its_name_or_none_at_all(works: Works, data: st.DataObject) -> None:
    text = works.server.read_text()
    der = bytearray(ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN") :]))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(der) - 1))
        der[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(ssl.DER_cert_to_PEM_cert(bytes(der)))
        file.flush()
        said = None
        try:
            ServerTls(file.name, works.server_key).context()
        except SettingsError as error:
            said = str(error)
    assert said is None or (said.isprintable() and (file.name in said or str(works.server_key) in said))


def test_an_encrypted_key_is_not_asked_for_on_the_terminal(works: Works, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    openssl("pkey", "-in", works.server_key, "-aes256", "-passout", "pass:secret", "-out", locked)
    assert complaint(ServerTls(works.server, locked)).startswith(f'key = "{locked}": the key is encrypted; decrypt it')


def test_other_bad_settings_are_named(works: Works) -> None:
    assert complaint(ServerTls(works.server, works.server_key, require_client=True)).startswith("require_client = true")
    assert (
        complaint(ServerTls(works.server, works.server_key, minimum="1.1")) == 'minimum = "1.1": there are 1.2 and 1.3'
    )
    for bad in ("", "x" * 256, "é"):
        assert complaint(ClientTls(alpn=("good", bad))).startswith("alpn = ['good', ")


def test_a_key_may_stand_in_the_certificates_file(works: Works, tmp_path: Path, connect: Connect) -> None:
    both = tmp_path / "both.pem"
    both.write_text("# Straße 7\n" + works.server_key.read_text() + works.server.read_text())
    with serving(ServerTls(both).context()) as port:
        connect(port, ClientTls(ca=works.ca.file).context()).close()


@pytest.fixture
def live(works: Works, tmp_path: Path) -> ServerTls:
    """A server's files, to be replaced."""
    shutil.copy(works.server, tmp_path / "server.pem")
    shutil.copy(works.server_key, tmp_path / "server.key")
    shutil.copy(works.ca.file, tmp_path / "clients.pem")
    return ServerTls(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "clients.pem")


def replace(target: object, source: Path) -> None:
    """As what renews certificates does: a new file in the place of the old one."""
    new = Path(f"{target}.new")
    shutil.copy(source, new)
    new.replace(str(target))


def meter(works: Works) -> ssl.SSLContext:
    return ClientTls(ca=works.ca.file, certificate=works.meter, key=works.meter_key).context()


def test_a_replaced_certificate_holds_for_new_connections_and_drops_none(
    works: Works, live: ServerTls, connect: Connect
) -> None:
    reloader = TlsReloader(live)
    with serving(reloader.context) as port:
        first = connect(port, meter(works))
        assert shown(first) == "server"
        replace(live.certificate, works.second)
        replace(live.key, works.second_key)
        assert shown(connect(port, meter(works))) == "server", "nobody has asked for it yet"
        assert reloader.reload_if_changed()
        assert shown(connect(port, meter(works))) == "second"
        assert not reloader.reload_if_changed()
        first.sendall(b"still here")
        assert first.recv(100) == b"still here"


def test_a_bad_replacement_leaves_the_old_certificate_in_use(works: Works, live: ServerTls, connect: Connect) -> None:
    reloader = TlsReloader(live)
    with serving(reloader.context) as port:
        replace(live.certificate, works.second)  # and its key is still on the way
        with pytest.raises(SettingsError, match="it is not the key of"):
            reloader.reload_if_changed()
        assert shown(connect(port, meter(works))) == "server"
        replace(live.key, works.second_key)
        assert reloader.reload_if_changed()
        assert shown(connect(port, meter(works))) == "second"
        Path(str(live.key)).unlink()
        with pytest.raises(SettingsError, match="no such file"):
            reloader.reload()
        assert shown(connect(port, meter(works))) == "second"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_authority_that_was_taken_out_ends_its_clients_sessions_too(
    works: Works, live: ServerTls, connect: Connect, version: ssl.TLSVersion
) -> None:
    reloader = TlsReloader(live)
    client = meter(works)
    client.maximum_version = version
    with serving(reloader.context) as port:
        first = connect(port, client)
        session = first.session
        again = connect(port, client, session=session)
        assert again.session_reused, "else the test would show nothing"
        replace(live.client_ca, works.other_ca.file)
        reloader.reload()
        with pytest.raises(OSError, match=r"unknown ca|reset|EOF|closed"):
            connect(port, client, session=session)
        stranger = ClientTls(ca=works.ca.file, certificate=works.stranger, key=works.stranger_key)
        connect(port, stranger.context())
        first.sendall(b"still here")
        assert first.recv(100) == b"still here"


def test_a_client_shows_its_new_certificate_when_it_comes_again(works: Works, tmp_path: Path) -> None:
    options = ClientTls(works.ca.file, tmp_path / "client.pem", tmp_path / "client.key")
    shutil.copy(works.meter, str(options.certificate))
    shutil.copy(works.meter_key, str(options.key))
    reloader = TlsReloader(options)
    server = ServerTls(works.server, works.server_key, client_ca=works.ca.file).context()

    def seen() -> str | None:
        """A handshake in memory."""
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours = reloader.context.wrap_bio(to_client, to_server, server_hostname="localhost")
        theirs = server.wrap_bio(to_server, to_client, server_side=True)
        for side in (ours, theirs, ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
        info = tls_info(theirs)
        assert info is not None
        return info.common_name

    assert seen() == "meter-7"
    replace(options.certificate, works.second)
    replace(options.key, works.second_key)
    reloader.reload()
    assert seen() == "second"


@pytest.mark.parametrize("poller", ["uvloop", "select"])
def test_event_loops_take_the_reloading_context(works: Works, live: ServerTls, poller: str) -> None:
    async def main() -> None:
        reloader = TlsReloader(live)
        seen: list[str | None] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            info = tls_info(writer.get_extra_info("ssl_object"))
            seen.append(info.common_name if info else None)
            while data := await reader.read(100):
                writer.write(data)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=reloader.context)
        port = server.sockets[0].getsockname()[1]
        client = TlsReloader(ClientTls(works.ca.file, works.meter, works.meter_key))

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str | None]:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client.context, server_hostname="localhost"
            )
            info = tls_info(writer.get_extra_info("ssl_object"))
            return reader, writer, info.common_name if info else None

        reader, writer, name = await connect()
        assert name == "server"
        replace(live.certificate, works.second)
        replace(live.key, works.second_key)
        reloader.reload()
        _, second_writer, name = await connect()
        assert name == "second"
        writer.write(b"still here")
        assert await reader.read(100) == b"still here"
        for each in (writer, second_writer):
            each.close()
            await each.wait_closed()
        server.close()
        await server.wait_closed()
        assert seen == ["meter-7", "meter-7"]

    async def bounded() -> None:
        async with asyncio.timeout(WAIT):
            await main()

    Reactor.run(bounded, poller)
