"""TLS at both ends: what clients see and how it is renewed; who providers are believed to be."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator

import pytest
from trimtab_core.routing import table
from trimtab_router import settings, tls

from . import engines, scene, wire

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="certificates are made with openssl")


def make_certificate(folder: pathlib.Path, name: str, host: str = "localhost") -> tuple[pathlib.Path, pathlib.Path]:
    """A self-signed certificate for a host name, and its key."""
    assert OPENSSL is not None
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{host}", "-out", certificate, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def believing(certificate: pathlib.Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


async def connect(port: int, context: ssl.SSLContext) -> wire.Client:
    return wire.Client(*await asyncio.open_connection("localhost", port, ssl=context, limit=1 << 24))


def name_seen(client: wire.Client) -> str:
    subject = client.writer.get_extra_info("peercert")["subject"]
    return str(dict(part[0] for part in subject)["commonName"])


def test_clients_are_served_over_tls_and_a_renewed_certificate_is_taken_over(tmp_path: pathlib.Path) -> None:
    certificate, key = make_certificate(tmp_path, "first")
    other, other_key = make_certificate(tmp_path, "second")
    context = believing(certificate)
    context.load_verify_locations(other)

    async def scenario() -> None:
        async with scene.engine() as engine:
            data = scene.make_table(scene.tier("small", engine.port))
            files = {"tls_certificate": certificate, "tls_key": key, "poll_seconds": 0.02}
            async with scene.router(data, **files) as router, await connect(router.port, context) as old:
                assert name_seen(old) == "first"
                other_key.replace(key)
                other.replace(certificate)
                async with asyncio.timeout(10):
                    name = "first"
                    while name == "first":
                        async with await connect(router.port, context) as client:
                            name = name_seen(client)
                assert name == "second"
                # A connection that stands goes on; streams and keep-alive are as without TLS.
                for stream in (False, True, False):
                    old.send(wire.request(wire.chat(stream=stream)))
                    assert (await old.reply()).status == 200

    scene.play(scenario)


def test_a_certificate_that_can_not_be_used_is_not_taken_over(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = make_certificate(tmp_path, "good")
    _, other_key = make_certificate(tmp_path, "other")
    held = tls.Certificate(certificate, key)
    assert not held.look()
    good = key.read_bytes()
    key.write_bytes(other_key.read_bytes())
    assert not held.look()
    assert not held.look()
    assert caplog.text.count("the last good certificate stays in use") == 1
    key.unlink()
    assert not held.look()
    key.write_bytes(good)
    assert held.look()


def test_old_tls_and_plain_text_are_refused(tmp_path: pathlib.Path) -> None:
    certificate, key = make_certificate(tmp_path, "first")
    assert tls.Certificate(certificate, key).context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert tls.asking(None).minimum_version == ssl.TLSVersion.TLSv1_2

    async def scenario() -> None:
        async with scene.router(None, tls_certificate=certificate, tls_key=key) as router:
            async with await wire.Client.open(router.port) as plain:
                plain.send(wire.request(path="/healthz", method="GET"))
                assert await plain.is_closed()
            assert (await router.get("/healthz", admin=True)).status == 200

    scene.play(scenario)


@contextlib.asynccontextmanager
async def secure_engine(certificate: pathlib.Path, key: pathlib.Path) -> AsyncIterator[engines.Engine]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    made = engines.Engine(engines.talk)
    serving = await asyncio.start_server(made._serve, "localhost", 0, ssl=context)
    made.port = serving.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        serving.close()


CASES = {
    "believed, right name": ("localhost", True, 200),
    "not believed": ("localhost", False, 502),
    "believed, wrong name": ("elsewhere", True, 502),
}


@pytest.mark.parametrize(("host", "believed", "status"), CASES.values(), ids=CASES.keys())
def test_a_provider_is_asked_over_tls_only_if_it_is_who_it_should_be(
    tmp_path: pathlib.Path, *, host: str, believed: bool, status: int
) -> None:
    certificate, key = make_certificate(tmp_path, "provider", host)

    async def scenario() -> None:
        async with secure_engine(certificate, key) as engine:
            external = table.External(f"https://localhost:{engine.port}")
            data = scene.make_table(scene.tier("out", endpoints=[], external=external))
            async with scene.router(data, upstream_ca=certificate if believed else None) as router:
                for stream in (False, True):
                    reply = await router.ask(wire.chat(stream=stream))
                    assert reply.status == status
                assert len(engine.asked) == (2 if status == 200 else 0)

    scene.play(scenario)


def test_authorities_that_can_not_be_read_are_one_clear_line(tmp_path: pathlib.Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    with pytest.raises(tls.FilesError, match=r"empty\.pem holds no certificates"):
        tls.asking(empty)
    with pytest.raises(tls.FilesError, match="No such file"):
        tls.asking(tmp_path / "none.pem")
    with pytest.raises(tls.FilesError, match="no certificate and its key"):
        tls.Certificate(empty, empty)
    assert settings.Settings(table=empty).tls_certificate is None
