import asyncio
import gc
import ssl

import pytest

from event_service.libs.http_client import (
    Broken,
    HttpClient,
    Progress,
    TimedOut,
    TlsFailed,
    parse_base_url,
    tls_context,
)

pytestmark = pytest.mark.anyio


async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/hang" in head:
                await reader.read()
                break
            peer = dict(writer.get_extra_info("peercert") or {}).get("subject", "")
            body = repr(peer).encode()
            if b"/large" in head:
                body = bytes(2_000_000)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


@pytest.fixture
async def start(certificates):
    servers = []

    async def start(cert=None, key=None, *, asks=False, maximum=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert or certificates.server, key or certificates.server_key)
        if asks:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(certificates.ca)
        if maximum:
            context.maximum_version = maximum
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        servers.append(server)
        return server.sockets[0].getsockname()[1]

    yield start
    for server in servers:
        server.close()


def client_of(port, host="localhost", **files):
    url = parse_base_url(f"https://{host}:{port}")
    return HttpClient(url, tls=tls_context(**files), connections=20)


async def fetch(client, target="/", time_limit=10.0):
    reply = await client.send("GET", target, time_limit=time_limit)
    return reply, await reply.read()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_calls_over_tls(start, certificates, host):
    client = client_of(await start(), host, ca_file=certificates.ca)
    reply, body = await fetch(client)
    assert (reply.status, body) == (200, b"''")
    assert reply.timings.tls > 0
    reply, body = await fetch(client)
    assert reply.timings.tls is None
    assert len((await fetch(client, "/large"))[1]) == 2_000_000
    await asyncio.gather(*(fetch(client) for _ in range(100)))
    await client.close()


async def test_a_certificate_of_an_unknown_authority_is_refused(start):
    client = client_of(await start())
    with pytest.raises(TlsFailed, match=r"self-signed certificate|unable to get") as caught:
        await fetch(client)
    assert caught.value.progress is Progress.NEVER_SENT
    assert caught.value.timings.connect is not None
    assert client.connections == 0
    await client.close()


async def test_a_certificate_for_another_name_is_refused(start, certificates):
    port = await start(certificates.other, certificates.other_key)
    client = client_of(port, ca_file=certificates.ca)
    with pytest.raises(TlsFailed, match=r"[Hh]ostname mismatch"):
        await fetch(client)
    await client.close()


async def test_a_peer_that_speaks_no_tls_is_refused(certificates):
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = client_of(server.sockets[0].getsockname()[1], ca_file=certificates.ca)
    with pytest.raises((TlsFailed, TimedOut)):
        await fetch(client, time_limit=0.5)
    assert client.connections == 0
    await client.close()
    server.close()


async def test_an_old_version_of_tls_is_refused(start, certificates):
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        port = await start(maximum=ssl.TLSVersion.TLSv1_1)
    client = client_of(port, ca_file=certificates.ca)
    with pytest.raises(TlsFailed):
        await fetch(client)
    await client.close()


async def test_a_slow_handshake_is_not_a_slow_reply(certificates):
    async def silent(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    client = client_of(server.sockets[0].getsockname()[1], ca_file=certificates.ca)
    with pytest.raises(TimedOut, match="TLS handshake") as caught:
        await fetch(client, time_limit=0.1)
    assert caught.value.progress is Progress.NEVER_SENT
    assert client.connections == 0
    await client.close()
    server.close()


async def test_a_peer_that_requires_a_client_certificate_gets_it(start, certificates):
    port = await start(asks=True)
    client = client_of(
        port, ca_file=certificates.ca, cert=certificates.client, key=certificates.client_key
    )
    assert b"'client'" in (await fetch(client))[1]
    await client.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_peer_that_requires_a_client_certificate_closes_without_one(
    start, certificates, version
):
    client = client_of(await start(asks=True, maximum=version), ca_file=certificates.ca)
    # With TLS 1.3 the peer says so only after the handshake.
    with pytest.raises((TlsFailed, Broken)):
        await fetch(client)
    assert client.connections == 0
    await client.close()


async def test_cancelled_calls_leave_no_socket(start, certificates):
    port = await start()
    client = client_of(port, ca_file=certificates.ca)
    for turns in range(0, 60, 2):
        call = asyncio.create_task(fetch(client, "/hang"))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert client.connections == 0
    await client.close()
    gc.collect()  # a socket that was left open would be warned of


def test_files_that_cannot_be_used_are_named_in_one_sentence(certificates, tmp_path):
    empty = tmp_path / "empty.pem"
    empty.touch()
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_bytes(b"\x00\xff" * 100)
    absent = tmp_path / "absent.pem"
    good = {"cert": certificates.client, "key": certificates.client_key}
    faults = [
        ({"ca_file": absent}, "absent.pem cannot be read: No such file"),
        ({"ca_file": tmp_path}, "cannot be read: Is a directory"),
        ({"ca_file": empty}, "empty.pem holds no certificate"),
        ({"ca_file": nonsense}, "nonsense.pem holds no certificate"),
        ({"ca_file": certificates.client_key}, "client.key holds no certificate"),
        (good | {"cert": absent}, "absent.pem cannot be read"),
        (good | {"key": absent}, "absent.pem cannot be read"),
        (good | {"cert": empty}, "not both in PEM form"),
        (good | {"key": empty}, "not both in PEM form"),
        (good | {"key": certificates.server_key}, "is not that of"),
        (good | {"key": certificates.encrypt(certificates.client_key)}, "is encrypted"),
        ({"cert": certificates.client}, "not both in PEM form"),
        ({"key": certificates.client_key}, "no client certificate"),
    ]
    for files, words in faults:
        with pytest.raises(ValueError, match=words) as caught:
            tls_context(**files)
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith(".")


def test_a_key_may_stand_in_the_certificates_file(certificates, tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes(certificates.client.read_bytes() + certificates.client_key.read_bytes())
    tls_context(ca_file=certificates.ca, cert=both)


@pytest.mark.parametrize("file", ["none", "empty.pem"])
@pytest.mark.parametrize("folder", ["none", "folder", "empty.pem"])
def test_a_machine_without_certificates_says_so(monkeypatch, tmp_path, file, folder):
    (tmp_path / "empty.pem").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / file))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / folder))
    with pytest.raises(ValueError, match="no CA certificates"):
        tls_context()


def test_a_folder_of_certificates_will_do(monkeypatch, tmp_path, certificates):
    (tmp_path / "ca.pem").write_bytes(certificates.ca.read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    tls_context()


@pytest.mark.parametrize(
    ("scheme", "tls"), [("https", None), ("http", ssl.create_default_context())]
)
def test_tls_is_for_https_alone(scheme, tls):
    with pytest.raises(ValueError, match="https needs"):
        HttpClient(parse_base_url(f"{scheme}://localhost"), tls=tls)
