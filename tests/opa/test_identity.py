"""Who calls, as real OPA sees it: principals, certificates, forged headers, revocations."""

import urllib.parse
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.certificates import NOW, Issued, a_leaf, a_root, an_intermediate, pem
from tests.support.rego import CLIENT, SERVER, a_policy, a_request, a_server, an_envoy_request, ask

ROOT, OTHER_ROOT = a_root(), a_root()
DATA = a_policy(
    authorities={"example.org": [pem(OTHER_ROOT.certificate).decode(), pem(ROOT.certificate).decode()]},
)
OTHER = "spiffe://example.org/ns/web/sa/other"


def leaf(uri: str = CLIENT, issuer: Issued = ROOT, **changes: Any) -> str:
    return pem(a_leaf(issuer, **{"uris": (uri.encode(),), **changes}).certificate).decode()


LEAF = leaf()


def with_certificate(certificate: object) -> dict[str, Any]:
    return a_request({"certificate": certificate, "mtls": True})


def xfcc(certificate: str, uri: str = CLIENT) -> str:
    return f'By={SERVER};Hash=ab;Cert="{urllib.parse.quote(certificate, safe="")}";URI={uri}'


@pytest.mark.parametrize(
    "given",
    [
        a_request(),
        a_request({"principal": CLIENT, "certificate": LEAF}),
        with_certificate(LEAF),
        with_certificate(urllib.parse.quote(LEAF)),
        with_certificate(urllib.parse.quote(LEAF, safe="")),
        with_certificate(LEAF + pem(ROOT.certificate).decode()),
        with_certificate("\n" + LEAF.replace("\n", "\r\n")),
        with_certificate(leaf(issuer=OTHER_ROOT)),
        an_envoy_request(),
        an_envoy_request({"principal": CLIENT, "certificate": urllib.parse.quote(LEAF, safe="")}),
        an_envoy_request({"certificate": urllib.parse.quote(LEAF, safe="")}),
        an_envoy_request(destination={"address": {"socketAddress": {"portValue": 8443}}},
                         contextExtensions={"server": SERVER}),
    ],
)  # fmt: skip
def test_who_shows_a_good_identity_is_let_in(given: dict[str, Any], tmp_path: Path) -> None:
    (answer,) = ask(tmp_path, DATA, given)
    assert (answer["allowed"], answer["client"], answer["server"]) == (True, CLIENT, SERVER)


def test_who_shows_none_has_none(tmp_path: Path) -> None:
    middle = an_intermediate(ROOT)
    foreign = a_root()
    refused = [
        a_request({}),
        a_request({"principal": ""}),
        *(a_request({"principal": one}) for one in (
            "CN=frontend", "spiffe://example.org", "spiffe://example.org/", CLIENT + "/", CLIENT.upper(), CLIENT + "\n",
            CLIENT.replace("/sa/", "/./sa/"), CLIENT.replace("/sa/", "/../sa/"), CLIENT + "?", "spiffe://EXAMPLE.org/a",
            CLIENT + "/" + "x" * 2048, "https://example.org/ns/web/sa/frontend", "*",
        )),
        with_certificate("x"),
        with_certificate("%"),
        with_certificate("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"),
        with_certificate(leaf(issuer=foreign)),
        # The caller brings the authority along, before or behind.
        with_certificate(leaf(issuer=foreign) + pem(foreign.certificate).decode()),
        with_certificate(pem(foreign.certificate).decode() + leaf(issuer=foreign)),
        with_certificate(leaf(issuer=middle) + pem(middle.certificate).decode()),
        with_certificate(leaf("spiffe://example.com/ns/web/sa/frontend")),
        with_certificate(leaf(uris=(CLIENT.encode(), OTHER.encode()))),
        with_certificate(leaf(uris=())),
        with_certificate(leaf(not_after=NOW - timedelta(seconds=1))),
        with_certificate(leaf(not_before=NOW + timedelta(seconds=1))),
        with_certificate(leaf(purposes=(ExtendedKeyUsageOID.SERVER_AUTH,))),
        with_certificate(leaf(ca=True)),
        with_certificate(pem(ROOT.certificate).decode()),
        a_request({"principal": CLIENT, "certificate": leaf(OTHER)}),
        a_request({"principal": CLIENT, "certificate": "nonsense"}),
        an_envoy_request({}),
        an_envoy_request({"principal": CLIENT, "certificate": urllib.parse.quote(leaf(OTHER))}),
        # Nobody is let in by a header alone.
        an_envoy_request({}, {"x-forwarded-client-cert": xfcc(LEAF)}),
        an_envoy_request({}, {"x-forwarded-client-cert": xfcc(LEAF, "")}),
        an_envoy_request({"principal": ""}, {"x-forwarded-client-cert": xfcc(LEAF, "")}),
        a_request({}, headers={"x-forwarded-client-cert": xfcc(LEAF)}),
    ]  # fmt: skip
    answers = ask(tmp_path, DATA, *refused)
    wrong = [given for given, answer in zip(refused, answers, strict=True) if answer["reason"] != "no_identity"]
    assert not wrong
    assert {(answer["allowed"], answer["status"], answer["client"]) for answer in answers} == {(False, 401, "")}


def test_any_workload_is_one_of_the_servers_trust_domain(tmp_path: Path) -> None:
    row = a_server()["grants"][CLIENT]
    data = a_policy(servers={SERVER: a_server(grants={"*": row})})
    near, far = ask(tmp_path, data, a_request(), a_request({"principal": "spiffe://example.com/ns/web/sa/frontend"}))
    assert (near["reason"], far["reason"]) == ("allowed", "no_grant")


class TestRevocation:
    """A cut-off revokes the certificates from before; while it stands, nobody passes without showing one."""

    CUTOFF = NOW - timedelta(minutes=10)
    DATA = a_policy(revocations={"identities": {CLIENT: int(CUTOFF.timestamp())}})
    OLD = leaf(not_before=CUTOFF - timedelta(seconds=1))
    NEW = leaf(not_before=CUTOFF)

    def test_only_a_certificate_from_since_then_passes(self, tmp_path: Path) -> None:
        old, new = self.OLD, self.NEW
        passing = [
            a_request({"principal": CLIENT, "certificate": new}),
            an_envoy_request({"principal": CLIENT, "certificate": urllib.parse.quote(new)}),
            an_envoy_request(None, {"x-forwarded-client-cert": xfcc(new)}),
            an_envoy_request(None, {"x-forwarded-client-cert": f"{xfcc(old)},{xfcc(new)}"}),
            an_envoy_request(None, {"x-forwarded-client-cert": f'Subject="CN=a,O=b;c";{xfcc(new)}'}),
        ]
        stopped = [
            a_request(),
            a_request({"principal": CLIENT, "certificate": old}),
            a_request(None, headers={"x-forwarded-client-cert": xfcc(new)}),
            an_envoy_request(),
            an_envoy_request({"principal": CLIENT, "certificate": urllib.parse.quote(old)},
                             {"x-forwarded-client-cert": xfcc(new)}),
            *(an_envoy_request(None, {"x-forwarded-client-cert": header}) for header in (
                "", ",", ";", '"', xfcc(old), f"{xfcc(new)},{xfcc(old)}", xfcc(new, OTHER), xfcc("x"),
                # The caller's part opens a quote that swallows the start of Envoy's, or escapes one.
                f'X=",{xfcc(new)}', f'{xfcc(new)},X=\\",{xfcc(old)}', f'{xfcc(new)};X=",{xfcc(old)}',
                f"{xfcc(new)};{xfcc(old)}", f"{xfcc(new)};URI={OTHER}", f"URI={CLIENT}",
            )),
        ]  # fmt: skip
        answers = ask(tmp_path, self.DATA, *passing, *stopped)
        reasons = [answer["reason"] for answer in answers]
        assert reasons[: len(passing)] == ["allowed"] * len(passing)
        # A certificate that is none, in a header of Envoy's own, contradicts the principal.
        assert set(reasons[len(passing) :]) == {"revoked_identity", "no_identity"}
        assert reasons[len(passing) :].count("no_identity") == 1

    def test_others_need_no_certificate(self, tmp_path: Path) -> None:
        row = a_server()["grants"][CLIENT]
        identities = {OTHER: int(self.CUTOFF.timestamp())}
        data = a_policy(servers={SERVER: a_server(grants={"*": row})}, revocations={"identities": identities})
        first, second = ask(tmp_path, data, a_request(), a_request({"principal": OTHER}))
        assert (first["reason"], second["reason"]) == ("allowed", "revoked_identity")

    @pytest.mark.parametrize("cutoff", ["soon", None, [], 10**30])
    def test_an_odd_cutoff_revokes(self, cutoff: object, tmp_path: Path) -> None:
        data = a_policy(revocations={"identities": {CLIENT: cutoff}})
        (answer,) = ask(tmp_path, data, a_request({"principal": CLIENT, "certificate": LEAF}))
        assert answer["reason"] == "revoked_identity"
