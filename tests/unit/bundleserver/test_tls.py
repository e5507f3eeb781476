"""The server's SVID and its trust, changed while clients are connected."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.bundleserver import PATH, POLICY, Rig, a_bundle, an_authority, an_svid, lasting, serving, wait
from tests.support.certificates import Issued, an_intermediate, key_pem, pem
from zerotrust.bundleserver.tls import TlsFiles, TlsIdentity, TlsSecret, UnusableMaterial


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with serving(tmp_path) as rig:
        rig.shelf.publish(POLICY, a_bundle(1))
        yield rig


async def status(session: aiohttp.ClientSession, **headers: str) -> int:
    async with session.get(PATH, headers=headers) as response:
        await response.read()
        return response.status


async def serial_shown(rig: Rig, *trusted: Issued) -> int:
    """The serial number of the certificate that a new connection gets."""
    context = rig.context(None, *trusted)
    _, writer = await asyncio.open_connection("127.0.0.1", rig.server.port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
    writer.close()
    return int(shown, 16)


async def test_only_tls_1_3(rig: Rig) -> None:
    context = rig.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", rig.server.port, ssl=context)
    _, writer = await rig.raw()
    assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
    writer.close()


async def test_a_renewed_svid_is_shown_to_new_connections_and_old_ones_live_on(rig: Rig) -> None:
    session = await rig.session(rig.token())
    held = asyncio.create_task(status(session, **{"If-None-Match": str(a_bundle(1).tag("k1")), **wait()}))
    await rig.waiting(1)
    renewed = an_svid(rig.authority, "bundle-server", "zerotrust-system")
    rig.install(renewed, rig.authority)
    assert rig.tls.reload()
    assert await serial_shown(rig) == renewed.certificate.serial_number
    rig.shelf.publish(POLICY, a_bundle(2))
    assert await held == 200
    assert not rig.tls.reload(), "nothing has changed since"


async def test_a_rotation_of_the_authority_step_by_step(rig: Rig) -> None:
    """Published, then signing, then the old one pruned: the bundle grows before the leaf changes, and shrinks last."""
    old, new = rig.authority, an_authority(common_name="new root")
    token = rig.token()
    of_old = await rig.session("", an_svid(old))
    assert await status(of_old) == 200
    rig.install(an_svid(old, "bundle-server", "zerotrust-system"), old, new)
    assert rig.tls.reload()
    of_new = await rig.session("", an_svid(new))
    assert [await status(of_old), await status(of_new)] == [200, 200]
    rig.install(an_svid(new, "bundle-server", "zerotrust-system"), old, new)
    assert rig.tls.reload()
    assert await status(of_old) == 200, "the open connection goes on"
    by_token = await rig.session(token, None, new)
    held = asyncio.create_task(status(by_token, **{"If-None-Match": str(a_bundle(1).tag("k1")), **wait()}))
    poll = asyncio.create_task(status(of_old, **{"If-None-Match": str(a_bundle(1).tag("k1")), **wait()}))
    await rig.waiting(2)
    rig.install(an_svid(new, "bundle-server", "zerotrust-system"), new)
    assert rig.tls.reload()
    with pytest.raises(aiohttp.ClientError):
        await poll
    rig.shelf.publish(POLICY, a_bundle(2))
    assert await held == 200, "a connection without a certificate trusts nobody's authority"
    assert rig.metric("connections_cut_total", reason="distrusted") == 2, "the two with certificates"
    with pytest.raises(aiohttp.ClientError):
        await status(await rig.session("", an_svid(old), new))
    assert await status(await rig.session("", an_svid(new), new)) == 200


async def test_broken_material_changes_nothing(rig: Rig) -> None:
    before = await serial_shown(rig)
    other = an_svid(rig.authority, "bundle-server", "zerotrust-system")
    for name, content in (
        ("tls.key", key_pem(other.key)),
        ("tls.crt", b"-----BEGIN CERTIFICATE-----\n"),
        ("ca.crt", b""),
        ("tls.crt", pem(an_authority().certificate)),
    ):
        file = rig.folder / name
        good = file.read_bytes()
        file.write_bytes(content)
        assert not rig.tls.reload()
        file.write_bytes(good)
    (rig.folder / "tls.crt").unlink()
    assert not rig.tls.reload()
    assert rig.tls.failures == 5
    assert await serial_shown(rig) == before
    assert rig.metric("tls_reload_failures") == 5


async def test_another_trust_domain_needs_a_restart(rig: Rig) -> None:
    foreign = an_svid(rig.authority, uris=(b"spiffe://other.example/ns/shop/sa/orders",))
    rig.install(foreign, rig.authority)
    assert not rig.tls.reload()


async def test_the_files_are_watched(rig: Rig) -> None:
    watch = asyncio.create_task(rig.tls.watch(0.01))
    renewed = an_svid(rig.authority, "bundle-server", "zerotrust-system")
    digest = rig.tls.current.digest
    rig.install(renewed, rig.authority)
    await rig.api.until(lambda: rig.tls.current.digest != digest)
    assert await serial_shown(rig) == renewed.certificate.serial_number
    watch.cancel()


async def test_a_chain_with_an_intermediate_is_shown_and_accepted(rig: Rig) -> None:
    middle = an_intermediate(rig.authority, **lasting())
    own = an_svid(middle, "bundle-server", "zerotrust-system")
    rig.install(own, rig.authority)
    with (rig.folder / "tls.crt").open("ab") as file:
        file.write(pem(middle.certificate))
    assert rig.tls.reload()
    assert await serial_shown(rig) == own.certificate.serial_number
    client = an_svid(middle)
    rig.install(own, middle)  # the intermediate alone is an anchor too
    (rig.folder / "tls.crt").write_bytes(pem(own.certificate, middle.certificate))
    assert rig.tls.reload()
    rig.token()
    assert await status(await rig.session("", client)) == 200


async def test_a_session_is_never_resumed(rig: Rig) -> None:
    """A resumed one would not verify the client against the present trust bundle."""
    context = rig.context()

    def talk() -> tuple[ssl.SSLSession | None, bool]:
        with socket.create_connection(("127.0.0.1", rig.server.port)) as plain, context.wrap_socket(plain) as tls:
            tls.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while tls.recv(4096):
                pass
            return tls.session, bool(tls.session and tls.session.has_ticket)

    _, has_ticket = await asyncio.to_thread(talk)
    assert not has_ticket


def test_a_secret_as_source() -> None:
    authority = an_authority()
    svid = an_svid(authority)
    data = {"tls.crt": pem(svid.certificate), "tls.key": key_pem(svid.key), "ca.crt": pem(authority.certificate)}
    identity = TlsIdentity(TlsSecret(lambda: data))
    assert identity.current.trust_domain == "example.org"
    del data["ca.crt"]
    assert not identity.reload()
    with pytest.raises(UnusableMaterial, match=r"ca\.crt"):
        TlsIdentity(TlsSecret(lambda: data))
    with pytest.raises(UnusableMaterial, match=r"tls\.crt, tls\.key, ca\.crt"):
        TlsSecret(lambda: None).load()


def test_the_key_is_in_no_message(tmp_path: Path) -> None:
    authority = an_authority()
    paths = [tmp_path / name for name in ("tls.crt", "tls.key", "ca.crt")]
    contents = (pem(an_svid(authority).certificate), key_pem(an_svid(authority).key), pem(authority.certificate))
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    source = TlsFiles(*paths)
    assert "PRIVATE" not in repr(source.load())
    with pytest.raises(UnusableMaterial, match=r"^tls\.key is not the key of tls\.crt"):
        TlsIdentity(source)
