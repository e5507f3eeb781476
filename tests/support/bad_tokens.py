"""The attacks on tokens that a verifier must know, by the numbers of the threat list, and good tokens beside them.

N: attacks on JWTs in general (RFC 8725 and the CVEs of its readers). O: the steps of OpenID Connect Core §3.1.3.7.
"""

import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives import serialization

from tests.support.tokens import (
    ISSUER,
    SECONDS,
    Case,
    claims,
    encoded,
    jwk,
    jwks,
    private_key,
    provider,
    signature,
    token,
)

GOOD = token()
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")
ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
MONTH = 31 * 24 * 3600


def good() -> Iterator[Case]:
    """Tokens that both verifiers accept."""
    for algorithm in ("ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA"):
        yield Case(algorithm, token(algorithm=algorithm), True)
    yield Case("several audiences", token({"aud": ["billing", "orders"]}), True)
    yield Case("one audience as a list", token({"aud": ["orders"]}), True)
    yield Case("no typ, as Kubernetes and Dex", token(typ=None), True)
    yield Case("access token by RFC 9068", token(typ="at+jwt"), True)
    yield Case("access token by RFC 9068, in full", token(typ="application/at+jwt"), True)
    yield Case("ID token of one audience", token({"nonce": "n", "at_hash": "aGFzaA"}), True)
    yield Case("ID token of its party", token({"nonce": "n", "aud": ["orders", "billing"], "azp": "orders"}), True)
    yield Case("access token of another client", token({"azp": "frontend"}), True)
    yield Case("access token of one of its audiences", token({"aud": ["orders", "billing"], "azp": "orders"}), True)
    yield Case("two spaces between scopes", token({"scope": " a  b "}), True)
    yield Case("expired within the leeway", token({"iat": SECONDS - 600, "exp": SECONDS - 59}), True)
    yield Case("from the future within the leeway", token({"iat": SECONDS + 60, "nbf": SECONDS + 60}), True)
    yield Case("fractions of seconds", token({"iat": SECONDS - 0.25, "exp": SECONDS + 299.5}), True)
    yield Case("a late fraction", token({"iat": SECONDS - 0.25, "nbf": SECONDS - 0.0625, "exp": SECONDS + 1.5}), True)
    yield Case("31 days", token({"iat": SECONDS, "exp": SECONDS + MONTH}), True)
    yield Case("letters beyond ASCII", token({"name": "Žofie 🦊"}), True)
    yield Case("escaped letters", token(text=json.dumps(claims(name='"Žofie" 🦊 </>'), ensure_ascii=True)), True)
    yield Case("numbers that others write", token({"score": 1e-7, "large": 2**70, "nothing": "NULL"}), True)
    yield Case("nested objects", token({"realm_access": {"roles": ["admin"]}}), True)
    yield Case("scp as a list", token({"scope": None, "scp": ["a", "b c"]}), True)
    yield Case("certificate chain in the header is not looked at", token(x5c=["MIIB"], x5t="AA"), True)
    two = (jwk("ES256", "old"), jwk("ES256 other", "new"))
    yield Case("rotation, old key", token(kid="old"), True, (provider(*two),))
    yield Case("rotation, new key", token(kind="ES256 other", kid="new"), True, (provider(*two),))
    labelled = jwk("ES256", "ES256", alg="ES256", use="sig", key_ops=["verify"], x5t="AA")
    yield Case("key with all its labels", GOOD, True, (provider(labelled),))
    other = provider(name="partner", issuer="https://partner.example.org")
    yield Case("second provider", token({"iss": "https://partner.example.org"}), True, (provider(), other))
    yield Case("last moment of the keys", GOOD, True, (provider(not_after=SECONDS + 1),))
    yield Case("no leeway", token({"iat": SECONDS, "exp": SECONDS + 2}), True, (provider(leeway=0),))


ACCESS = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"  # OpenID Connect Core appendix A.4, and its hash
SPEAKING = {"nonce": "n", "at_hash": "77QmUPtjPfzWtF2AnpK9RQ"}


def at_hash(access: str, digest: str = "sha256") -> str:
    """What an ID token says of an access token."""
    octets = hashlib.new(digest, access.encode()).digest()
    return encoded(octets[: len(octets) // 2])


def good_beside() -> Iterator[Case]:
    """Tokens that are accepted together with an access token."""
    assert at_hash(ACCESS) == SPEAKING["at_hash"]
    for algorithm in ("ES256", "RS256", "PS256"):
        yield Case(f"at_hash, {algorithm}", token(SPEAKING, algorithm=algorithm), True, beside=ACCESS)
    yield Case("at_hash without a nonce", token({"at_hash": at_hash(ACCESS)}), True, beside=ACCESS)
    yield Case("at_hash of a JWT", token({"at_hash": at_hash(GOOD)}), True, beside=GOOD)
    yield Case("at_hash of the longest", token({"at_hash": at_hash("a" * 16_384)}), True, beside="a" * 16_384)
    yield Case("at_hash, nothing beside it", token(SPEAKING), True)
    yield Case("at_hash, no typ", token(SPEAKING, typ=None), True, beside=ACCESS)
    for typ in ("at+jwt", "application/at+jwt"):
        yield Case(f"{typ} speaks for itself", token(typ=typ), True, beside=ACCESS)


def o_access_tokens() -> Iterator[Case]:
    """O10: an access token beside an ID token that does not speak for it."""
    digest = hashlib.sha256(ACCESS.encode()).digest()
    for name, claim in {
        "missing": None,
        "empty": "",
        "of another": at_hash("another"),
        "whole digest": encoded(digest),
        "right half": encoded(digest[16:]),
        "padded": at_hash(ACCESS) + "==",
        "hex": digest[:16].hex(),
        "the token itself": ACCESS,
        "SHA-512": at_hash(ACCESS, "sha512"),
        "in capitals": at_hash(ACCESS).upper(),
        "a list": [at_hash(ACCESS)],
        "null": "NULL",
        "true": True,
    }.items():
        yield Case(f"O10 at_hash {name}", token({"nonce": "n", "at_hash": claim}), beside=ACCESS)
    yield Case("O10 no ID token's claims at all", GOOD, beside=ACCESS)
    for algorithm, digest in {"ES384": "sha384", "ES512": "sha512", "EdDSA": "sha512"}.items():
        for name in (digest, "sha256"):
            said = {"nonce": "n", "at_hash": at_hash(ACCESS, name)}
            yield Case(f"O10 at_hash, {algorithm}, {name}", token(said, algorithm=algorithm), beside=ACCESS)
    for name, access in {
        "empty": "", "space": "a b", "new line": "a\n", "NUL": "a\0", "not ASCII": "\u00e9", "two": f"{ACCESS}, {ACCESS}",
        "too long": "a" * 16_385,
    }.items():  # fmt: skip
        said = at_hash(access) if name != "two" else at_hash(ACCESS)
        yield Case(f"O10 access token: {name}", token({"nonce": "n", "at_hash": said}), beside=access)
    yield Case("O10 another's access token", token(SPEAKING), beside=ACCESS[:-1] + "Z")
    yield Case("O10 forged, and speaks for it", token(SPEAKING, kind="ES256 other", kid="ES256"), beside=ACCESS)


def bad() -> Iterator[Case]:
    """Tokens that both verifiers refuse."""
    yield from n_algorithms()
    yield from n_keys()
    yield from n_signatures()
    yield from n_encodings()
    yield from n_claims()
    yield from o_id_tokens()
    yield from o_access_tokens()
    yield from providers()


def forged(algorithm: str, **header: Any) -> str:
    """Unsigned; `alg` is whatever is asked for."""
    return f"{encoded(json.dumps({'alg': algorithm, 'kid': 'ES256', 'typ': 'JWT', **header}))}.{PAYLOAD}."


def mac(secret: bytes, kid: str = "RSA") -> str:
    signed = f"{encoded(json.dumps({'alg': 'HS256', 'kid': kid, 'typ': 'JWT'}))}.{PAYLOAD}"
    return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def n_algorithms() -> Iterator[Case]:
    """N1, N2, N7, N18, N21: the header chooses how it is judged."""
    every = ("none", "None", "nOnE", "HS256", "ES256", "RS256", "RSA1_5")
    for name in ("none", "None", "nOnE", ""):
        yield Case(f"N1 alg {name}", forged(name))
        yield Case(f"N1 alg {name}, even if a provider lists it", forged(name), providers=(provider(algorithms=every),))
        yield Case(f"N1 alg {name} with a good signature", forged(name) + SIGNATURE)
    yield Case("N1 alg missing", token(alg=None))
    yield Case("N1 alg no text", token(alg=["ES256"]))
    public = private_key("RSA").public_key()
    for form, coding in {"PEM": serialization.Encoding.PEM, "DER": serialization.Encoding.DER}.items():
        octets = public.public_bytes(coding, serialization.PublicFormat.SubjectPublicKeyInfo)
        yield Case(f"N2 HS256 with the public key, {form}", mac(octets))
        yield Case(
            f"N2 HS256 with the public key, {form}, even if listed",
            mac(octets),
            providers=(provider(algorithms=every),),
        )
    yield Case("N2 HS256 with the JWK Set", mac(provider().jwks.encode()))
    for size in (0, 1, 8):
        octet = {"kty": "oct", "kid": "RSA", "k": encoded(b"k" * size)}
        yield Case(
            f"N7 shared secret of {size} octets", mac(b"k" * size), providers=(provider(octet, algorithms=every),)
        )
    yield Case("N18 algorithm that the provider does not use", token(algorithm="RS512"))
    yield Case("N18 PS256 where only RS256 is", token(algorithm="PS256"), providers=(provider(algorithms=("RS256",)),))
    yield Case("N21 RSA1_5", forged("RSA1_5", enc="A128GCM"), providers=(provider(algorithms=every),))
    yield Case("N21 encrypted, five parts", f"{HEADER}.{PAYLOAD}.{SIGNATURE}.{PAYLOAD}.{SIGNATURE}")
    yield Case("N21 enc in a signed token", token(enc="A128GCM"))


def n_keys() -> Iterator[Case]:
    """N3 to N6, N18, N19: which key judges."""
    attacker = jwk("ES256 attacker", "ES256 attacker")
    for header in ({"jwk": attacker}, {"jku": "https://evil.example/jwks"}, {"x5u": "https://evil.example/x5c"}):
        number = "N3" if "jwk" in header else "N4"
        name = next(iter(header))
        yield Case(f"{number} {name} in the header", token(kind="ES256 attacker", **header))
        yield Case(f"{number} {name} in the header, known kid", token(kind="ES256 attacker", kid="ES256", **header))
    yield Case("N4 x5c in the header", token(kind="ES256 attacker", kid="ES256", x5c=["MIIB"]))
    alone = (provider(jwk("ES256", "ES256")),)
    for kid in ("unknown", "", "../../dev/null", "' OR '1'='1", "ES256\u0000", "es256", None, 7, ["ES256"], {}, True):
        yield Case(f"N5 kid {kid!r}", token(kid=kid), providers=alone)
    unnamed = (provider(jwk("ES256", None)),)
    yield Case("N5 key without a kid, token without a kid", token(kid=None), providers=unnamed)
    yield Case("N5 key without a kid", GOOD, providers=unnamed)
    for kid in ("", 7):
        named = (provider({**jwk("ES256", None), "kid": kid}),)
        yield Case(f"N5 kid {kid!r}, as the key has it", token(kid=kid), providers=named)
    twice = (provider(jwk("ES256", "ES256"), jwk("ES256 other", "ES256")),)
    yield Case("N5 two keys of one kid", GOOD, providers=twice)
    yield Case("N6 PBES2", token(alg="PBES2-HS256+A128KW", p2c=2**31, p2s="AA", enc="A128GCM"))
    yield Case("N6 p2c beside enc", token(p2c=2**31, enc="A128GCM"))
    for name, key in {
        "use=enc": jwk("ES256", "ES256", use="enc"),
        "another alg": jwk("ES256", "ES256", alg="ES384"),
        "alg null": {**jwk("ES256", "ES256"), "alg": None},
        "key_ops without verify": jwk("ES256", "ES256", key_ops=["deriveBits"]),
        "another kind": jwk("RSA", "ES256"),
        "another curve": jwk("ES384", "ES256"),
        "a point off the curve": jwk("ES256", "ES256", y=encoded(b"\x01" * 32)),
        "no point": jwk("ES256", "ES256", y=None),
    }.items():
        yield Case(f"N18 key: {name}", GOOD, providers=(provider(key),))
    weak = (provider(jwk("RSA 1024", "RSA 1024")),)
    for algorithm in ("RS256", "PS256"):
        yield Case(f"N19 RSA 1024, {algorithm}", token(algorithm=algorithm, kind="RSA 1024"), providers=weak)
    yield Case(
        "N18 P-384 key for ES256", token(kind="ES384", algorithm="ES256"), providers=(provider(jwk("ES384", "ES384")),)
    )


def n_signatures() -> Iterator[Case]:
    """N8: signatures that a careless verifier takes."""
    signed = f"{HEADER}.{PAYLOAD}"
    octets = signature("ES256", private_key("ES256"), signed.encode())
    order = ORDER_P256.to_bytes(32)
    for name, wrong in {
        "empty": b"",
        "zero": bytes(64),
        "zero and one": bytes(63) + b"\x01",
        "the order": order + order,
        "one and the order": bytes(31) + b"\x01" + order,
        "truncated": octets[:-1],
        "half": octets[:32],
        "longer": octets + b"\x00",
        "zeros before the numbers": b"\x00" + octets[:32] + b"\x00" + octets[32:],
        "swapped": octets[32:] + octets[:32],
        "all ones": b"\xff" * 64,
        "the negative of r": octets[:31] + bytes([octets[31] ^ 1]) + octets[32:],
    }.items():
        yield Case(f"N8 signature: {name}", f"{signed}.{encoded(wrong)}")
    yield Case("N8 another key's signature", token(kind="ES256 other", kid="ES256"))
    yield Case("N8 another token's signature", f"{token({'sub': 'root'}).rpartition('.')[0]}.{SIGNATURE}")
    head = f"{encoded(json.dumps({'alg': 'PS256', 'kid': 'RSA'}))}.{PAYLOAD}"
    salted = signature("PS256", private_key("RSA"), head.encode(), salt=20)
    yield Case("N8 PSS with a short salt", f"{head}.{encoded(salted)}")
    for algorithm in ("RS256", "PS256", "EdDSA"):
        start = token(algorithm=algorithm).rpartition(".")[0]
        for size in (0, 1, 64, 256):
            yield Case(f"N8 {algorithm}: {size} zeros", f"{start}.{encoded(bytes(size))}")


def n_encodings() -> Iterator[Case]:
    """N9 to N12, N20, N22: what readers read differently."""
    for crit in (["exp"], ["b64"], ["x"], [], "b64", None):
        given = {} if crit is None else {"crit": crit}
        if given:
            yield Case(f"N9 crit {crit!r}", token(x=1, **given))
    yield Case("N10 b64 false", token(b64=False))
    yield Case("N10 b64 false, critical", token(b64=False, crit=["b64"]))
    yield Case("N10 payload not encoded", f"{HEADER}.{json.dumps(claims())}.{SIGNATURE}")
    body = json.dumps(claims())
    yield Case("N11 claim twice", token(text=body[:-1] + ', "sub": "root"}'))
    yield Case("N11 claim twice, the same", token(text=body[:-1] + ', "sub": "a2b4"}'))
    yield Case(
        "N11 claim twice, hidden quotes", token(text=body[:-1] + ', "sub": "a", "q": "\\u0022\\u0022\\u0022\\u0022"}')
    )
    yield Case("N11 nested claim twice", token(text=body[:-1] + ', "a": {"b": 1, "b": 2}}'))
    twice = '{"alg": "none", "alg": "ES256", "kid": "ES256"}'
    yield Case("N11 header twice", token(header_text=twice))
    yield Case("N11 escaped name twice", token(text=body[:-1] + ', "s\\u0075b": "root"}'))
    yield Case("N12 oversized", token({"padding": "x" * 13_000}))
    yield Case("N12 many dots", "." * 10_000)
    yield Case("N12 megabyte", "A" * 1_000_000)
    yield Case("N12 deep lists", token(text=body[:-1] + ', "deep": ' + "[" * 2000 + "]" * 2000 + "}"))
    yield Case("N12 compressed", token(zip="DEF", text="\x00\x01"))
    for dots in ("", ".", "..", "...", "a", "a.b"):
        yield Case(f"N12 parts: {dots!r}", dots)
    for parts in (f"{GOOD}.", f".{GOOD}", f"{GOOD}.{SIGNATURE}", f"{GOOD}.{GOOD}", f"{HEADER}.{PAYLOAD}"):
        shape = parts.replace(HEADER, "h").replace(PAYLOAD, "p").replace(SIGNATURE, "s")
        yield Case(f"N12 parts: {shape}", parts)
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    neighbour = last[last.index(SIGNATURE[-1]) ^ 1]
    yield Case("N20 unused bits set", GOOD[:-1] + neighbour)
    for name, wrong in {
        "padding": GOOD + "==",
        "padding inside": f"{HEADER}=.{PAYLOAD}.{SIGNATURE}",
        "newline at the end": GOOD + "\n",
        "newline inside": f"{HEADER}.{PAYLOAD[:8]}\n{PAYLOAD[8:]}.{SIGNATURE}",
        "carriage return": f"{HEADER}\r.{PAYLOAD}.{SIGNATURE}",
        "space before": " " + GOOD,
        "standard alphabet": GOOD.replace("-", "+").replace("_", "/") + "+",
        "letter beyond ASCII": GOOD + "é",
        "NUL": GOOD + "\x00",
    }.items():
        yield Case(f"N20 {name}", wrong)
    nested = encoded(json.dumps({"alg": "ES256", "kid": "ES256", "typ": "JWT", "cty": "JWT"}))
    inner = f"{nested}.{encoded(GOOD)}"
    yield Case("N22 nested", f"{inner}.{encoded(signature('ES256', private_key('ES256'), inner.encode()))}")
    for cty in ("JWT", "jwt", "json", 5, None, ["JWT"], {"a": 1}):
        yield Case(f"N22 cty {cty!r}", token(header_text=json.dumps({"alg": "ES256", "kid": "ES256", "cty": cty})))
    for name, text in {
        "list": "[]", "text": '"a"', "null": "null", "nothing": "", "two objects": body + body, "NaN": '{"exp": NaN}',
        "trailing comma": body[:-1] + ",}", "comment": body + "//", "byte order mark": "\ufeff" + body,
    }.items():  # fmt: skip
        yield Case(f"N12 payload: {name}", token(text=text))
    for name, octets in {"not UTF-8": b'"\xff"', "a lone surrogate": b'"\\ud800"', "U+FFFD": "\ufffd".encode()}.items():
        written = body[:-1].encode() + b', "a": "' + octets.strip(b'"') + b'"}'
        signed = f"{HEADER}.{encoded(written)}"
        ending = encoded(signature("ES256", private_key("ES256"), signed.encode()))
        yield Case(f"N12 payload: {name}", f"{signed}.{ending}")


def n_claims() -> Iterator[Case]:
    """N13 to N17: claims of a wrong kind, and tokens made for something else."""
    body = json.dumps(claims(exp=None, sub="another"))[:-1]  # in one run OPA would take 1e0 for the 1 that it knows
    for text in ("NaN", "Infinity", '"9999999999"', "null", "true", "[1]", "{}", "-1", "0", "1e400", "1e99999999999",
                 "1e1000000000", "9999999999", str(SECONDS + MONTH), str(10**30), f"{SECONDS + 300}e0"):  # fmt: skip
        yield Case(f"N13 exp {text}", token(text=f'{body}, "exp": {text}}}'))
    yield Case("N13 exp missing", token({"exp": None}))
    yield Case("N13 expired", token({"iat": SECONDS - 600, "exp": SECONDS - 60}))
    yield Case("N13 expired in a fraction", token({"iat": SECONDS - 600, "exp": SECONDS - 59.5}))
    yield Case("N13 ends in the second after it begins", token({"exp": SECONDS + 1, "iat": SECONDS}))
    yield Case("N13 ends before it begins", token({"exp": SECONDS + 10, "iat": SECONDS + 30}))
    for nbf in (SECONDS + 61, SECONDS + 3600, str(SECONDS), "NULL", [], False, -5):
        yield Case(f"N13 nbf {nbf if isinstance(nbf, str) else type(nbf).__name__} {nbf}", token({"nbf": nbf}))
    for iat in (SECONDS + 61, SECONDS + 10**6, str(SECONDS), "NULL", None, [], True, 1e20):
        name = "missing" if iat is None else iat
        yield Case(f"N14 iat {name}", token({"iat": iat}))
    for iss in (ISSUER + "/", ISSUER[:-1], ISSUER.upper(), ISSUER.replace("https", "http"), "", 7, [ISSUER], "NULL",
                None, {"a": ISSUER}, True, ISSUER + "\u0000"):  # fmt: skip
        yield Case(f"N15 iss {iss!r}", token({"iss": iss}))
    for aud in (7, [], "", [""], ["orders", 7], [["orders"]], {"orders": True}, "NULL", None, True, ["a"] * 65):
        yield Case(f"N16 aud {aud!r}"[:60], token({"aud": aud}))
    for typ in ("dpop+jwt", "logout+jwt", "secevent+jwt", "JOSE", "at-jwt", "", "JWE", 7, ["JWT"], "null", False):
        given = {"typ": typ} if typ != "null" else {"header_text": '{"alg": "ES256", "kid": "ES256", "typ": null}'}
        yield Case(f"N17 typ {typ!r}", token(**given))  # type: ignore[arg-type]
    event = {"http://schemas.openid.net/event/backchannel-logout": {}}
    yield Case("N17 logout token of type JWT", token({"events": event}))
    yield Case("N17 bound to a DPoP key, sent as Bearer", token({"cnf": {"jkt": "AA"}}))
    yield Case("N17 bound to a certificate", token({"cnf": {"x5t#S256": "AA"}}))


def o_id_tokens() -> Iterator[Case]:
    """O2 to O13 as far as they are not N already: O11 to O13 speak of the client's own request."""
    two = ["orders", "billing"]
    yield Case("O4 several audiences, no azp", token({"nonce": "n", "aud": two}))
    yield Case("O4 several audiences, no azp, by at_hash", token({"at_hash": "aGFzaA", "aud": two}))
    yield Case("O5 azp of another party", token({"nonce": "n", "aud": two, "azp": "frontend"}))
    yield Case("O5 azp of another party, one audience", token({"nonce": "n", "azp": "frontend"}))
    for azp in (7, [], ["orders"], "NULL", {}):
        yield Case(f"O5 azp {azp!r}", token({"azp": azp}))
        yield Case(f"O5 azp {azp!r} of an ID token", token({"azp": azp, "nonce": "n"}))
    yield Case("O8 MAC", mac(b"client secret"))
    for value in (7, [], "NULL", {}):
        yield Case(f"at_hash {value!r}", token({"at_hash": value}))
    for sub in ("", "x" * 256, "Žofie", 7, "NULL", ["a"], "a\n"):
        yield Case(f"sub {str(sub)[:6]!r} {type(sub).__name__} {len(str(sub))}", token({"sub": sub}))


def providers() -> Iterator[Case]:
    """What is wrong with the keys, not with the token."""
    yield Case("keys too old", GOOD, providers=(provider(not_after=SECONDS),))
    yield Case("no provider", GOOD, providers=())
    yield Case("two providers of one issuer", GOOD, providers=(provider(), provider(name="twin")))
    another = provider(jwk("ES256 other", "ES256"), name="partner", issuer="https://partner.example.org")
    yield Case("key of another provider", token(kind="ES256 other", kid="ES256"), providers=(provider(), another))
    yield Case("no keys", GOOD, providers=(provider(jwks=jwks()),))
    yield Case("an hour later", GOOD, moment=SECONDS + 3600)
    yield Case("an hour before", GOOD, moment=SECONDS - 3600)
    yield Case("no leeway, expired", token({"exp": SECONDS}), providers=(provider(leeway=0),))
    yield Case("no leeway, a second early", token({"iat": SECONDS + 1}), providers=(provider(leeway=0),))
