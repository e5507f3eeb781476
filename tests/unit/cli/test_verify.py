"""`zerotrust verify` as a person or a pipeline runs it."""

import base64
import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from tests.support.certificates import NOW, SPIFFE_ID, Svid, an_svid, key_pem, new_key, pem
from zerotrust.cli.verify import Question, verify
from zerotrust.pki.conformance import RULES

AT = f"{NOW:%Y-%m-%dT%H:%M:%SZ}"


def run(*arguments: str, stdin: str | bytes | None = None, at: str = AT, **environment: str) -> Result:
    return CliRunner(env={"NO_COLOR": "1", **environment}).invoke(verify, ["--at", at, *arguments], input=stdin)


def values(svid: Svid, key: Any = None) -> dict[str, bytes]:
    return {
        "tls.crt": pem(*svid.chain),
        "tls.key": key_pem(key or svid.key),
        "ca.crt": pem(*svid.bundle),
        "bundle.spiffe.json": svid.spiffe_bundle,
    }


def secret(fields: Mapping[str, bytes], name: str = "orders-svid") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "shop"},
        "type": "kubernetes.io/tls",
        "data": {field: base64.b64encode(value).decode() for field, value in fields.items()},
    }


def outcomes(result: Result) -> dict[str, str]:
    (svid,) = json.loads(result.stdout)["svids"]
    return {entry["rule"]: entry["outcome"] for entry in svid["results"]}


def failed(result: Result) -> set[str]:
    return {rule for rule, outcome in outcomes(result).items() if outcome == "fail"}


def assert_no_key(result: Result, *keys: bytes) -> None:
    for key in keys:
        for line in key.splitlines():
            if line.startswith(b"-----"):
                continue
            assert line.decode() not in result.output
            assert base64.b64encode(line).decode()[:-4] not in result.output


@pytest.fixture(scope="module")
def svid() -> Svid:
    return an_svid()


@pytest.fixture
def folder(tmp_path: Path, svid: Svid) -> Path:
    """The files as a pod mounts them."""
    for name, content in values(svid).items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_good_secret_passes_with_one_line_per_rule(tmp_path: Path, svid: Svid) -> None:
    file = tmp_path / "secret.yaml"
    file.write_text(yaml.safe_dump(secret(values(svid))))
    result = run("--secret", str(file), "--trust-domain", "example.org")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["RULE", "VERDICT", "SECTION", "REQUIREMENT", "OR", "FINDING"]
    assert [line.split()[0] for line in lines[1:4]] == ["S1", "S2", "S3"]
    assert len(lines) == 1 + len(RULES) + 2
    assert lines[-2] == f"PASS: Secret shop/orders-svid {SPIFFE_ID}: 30 pass, 0 fail, 6 not applicable"
    assert all(line == line.rstrip() for line in lines)
    assert_no_key(result, key_pem(svid.key))


@pytest.mark.parametrize("dump", [yaml.safe_dump, json.dumps])
def test_a_secret_is_read_from_standard_input(svid: Svid, dump: Any) -> None:
    assert run("-", stdin=dump(secret(values(svid)))).exit_code == 0
    assert run("--secret", "-", stdin=dump(secret(values(svid)))).exit_code == 0


def test_string_data_wins_over_data(svid: Svid) -> None:
    manifest = {
        **secret({**values(svid), "tls.key": key_pem(new_key())}),
        "stringData": {"tls.key": key_pem(svid.key).decode()},
    }
    assert run("-", stdin=yaml.safe_dump(manifest)).exit_code == 0


def test_base64_may_be_folded(svid: Svid) -> None:
    manifest = secret(values(svid))
    manifest["data"] = {field: f"{value[:60]}\n{value[60:]}\n" for field, value in manifest["data"].items()}
    assert run("-", stdin=yaml.safe_dump(manifest)).exit_code == 0


def test_every_secret_of_every_document_is_checked(svid: Svid) -> None:
    good, bad = secret(values(svid)), secret(values(svid, new_key()), "bad")
    listed = {"kind": "List", "items": [{"kind": "ConfigMap"}, "text", bad]}
    nameless = {name: value for name, value in good.items() if name not in ("kind", "apiVersion")}
    text = yaml.safe_dump_all([{"kind": "Namespace"}, good, None, listed, {"kind": "SecretList", "items": [nameless]}])
    result = run("-", "-o", "json", stdin=text)
    verdicts = [(entry["name"], entry["verdict"]) for entry in json.loads(result.stdout)["svids"]]
    assert verdicts == [
        ("Secret shop/orders-svid", "pass"),
        ("Secret shop/bad", "fail"),
        ("Secret shop/orders-svid", "pass"),
    ]
    assert result.exit_code == 1


def test_an_unreadable_secret_hides_no_other(svid: Svid) -> None:
    text = yaml.safe_dump_all([secret({}, "empty"), secret(values(svid))])
    result = run("-", stdin=text)
    assert "PASS: Secret shop/orders-svid" in result.stdout
    assert result.stderr == "Error: Secret shop/empty: tls.crt is missing; give a Secret that holds an SVID\n"
    assert result.exit_code == 2


def test_mounted_files_are_recognised(folder: Path) -> None:
    result = run(*sorted(map(str, folder.iterdir())))
    assert result.exit_code == 0
    assert "PASS: " in result.stdout


def test_files_are_given_by_option(folder: Path) -> None:
    names = {"--cert": "tls.crt", "--bundle": "ca.crt", "--key": "tls.key", "--spiffe-bundle": "bundle.spiffe.json"}
    arguments = [argument for option, name in names.items() for argument in (option, str(folder / name))]
    result = run(*arguments, "-o", "json")
    assert result.exit_code == 0
    assert set(outcomes(result).values()) == {"pass", "not-applicable"}


def test_a_spiffe_bundle_is_bundle_enough(folder: Path) -> None:
    assert run("--cert", str(folder / "tls.crt"), "--spiffe-bundle", str(folder / "bundle.spiffe.json")).exit_code == 0


def test_a_bundle_beside_a_secret_replaces_its_own(tmp_path: Path, svid: Svid) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(pem(*an_svid().bundle))
    fields = {name: value for name, value in values(svid).items() if name != "bundle.spiffe.json"}
    result = run("-", "--bundle", str(other), "-o", "json", stdin=yaml.safe_dump(secret(fields)))
    assert failed(result) == {"X13"}


def test_an_expired_certificate_fails(svid: Svid) -> None:
    late = f"{NOW + timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}"
    result = run("-", stdin=yaml.safe_dump(secret(values(svid))), at=late)
    assert result.exit_code == 1
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("X13")]
    assert line.endswith("leaf expired at 2026-11-22T13:00:00Z, judged at 2026-11-22T14:00:00Z")
    assert "1 fail (X13)" in result.stdout


def test_the_default_time_is_now() -> None:
    past = an_svid(leaf={"not_before": NOW - timedelta(days=3000), "not_after": NOW - timedelta(days=2999)})
    result = CliRunner().invoke(verify, ["-", "-o", "json"], input=yaml.safe_dump(secret(values(past))))
    assert "X13" in failed(result)


def test_a_wrong_key_fails_and_is_not_shown(svid: Svid) -> None:
    key = new_key()
    result = run("-", "-o", "json", stdin=yaml.safe_dump(secret(values(svid, key))))
    assert failed(result) == {"K1"}
    assert result.exit_code == 1
    assert_no_key(result, key_pem(key), key_pem(svid.key))


def test_another_trust_domain_fails(svid: Svid) -> None:
    result = run("-", "--trust-domain", "other.org", "-o", "json", stdin=yaml.safe_dump(secret(values(svid))))
    assert failed(result) == {"B8"}


@pytest.mark.parametrize("name", ["spiffe://example.org", "\udcff", ""])
def test_a_trust_domain_that_is_none_is_refused(svid: Svid, name: str) -> None:
    result = run("-", "--trust-domain", name, stdin=yaml.safe_dump(secret(values(svid))))
    assert result.exit_code == 2
    assert "give a name such as example.org" in result.stderr


def test_json_says_everything_and_nothing_secret(svid: Svid) -> None:
    result = run("-", "-o", "json", stdin=yaml.safe_dump(secret(values(svid))))
    (entry,) = json.loads(result.stdout)["svids"]
    assert json.loads(result.stdout)["at"] == AT
    assert (entry["spiffeID"], entry["verdict"], entry["error"]) == (SPIFFE_ID, "pass", "")
    assert entry["results"][0] == {
        "rule": "S1",
        "section": "SPIFFE-ID §2",
        "requirement": "the ID has the scheme spiffe, a trust domain, no query and no fragment",
        "outcome": "pass",
        "message": "",
    }
    assert_no_key(result, key_pem(svid.key))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("tls.crt", None, "Secret shop/orders-svid: tls.crt is missing; give a Secret that holds an SVID"),
        ("tls.crt", b"", 'data["tls.crt"]: holds no PEM certificate; give text with -----BEGIN CERTIFICATE-----'),
        ("tls.crt", b"-----BEGIN CERTIFICATE-----\nAAAA\n", 'data["tls.crt"]: holds a PEM certificate that is damaged'),
        ("tls.crt", b"x" * (4 * 2**20 + 1), 'data["tls.crt"]: has 4194305 bytes; at most 4194304 are read'),
        ("ca.crt", b"none", 'data["ca.crt"]: holds no PEM certificate'),
        ("tls.key", b"none", 'data["tls.key"]: holds no readable PEM private key; give PKCS#8, PKCS#1 or SEC 1'),
    ],
)
def test_a_field_that_cannot_be_read_is_named(svid: Svid, field: str, value: bytes | None, words: str) -> None:
    fields = {name: content for name, content in {**values(svid), field: value}.items() if content is not None}
    result = run("-", stdin=json.dumps(secret(fields)))
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_a_secret_without_any_bundle_says_what_to_give(svid: Svid) -> None:
    fields = {name: value for name, value in values(svid).items() if name.startswith("tls")}
    result = run("-", stdin=yaml.safe_dump(secret(fields)))
    assert result.exit_code == 2
    assert "there is no trust bundle; give one with --bundle or --spiffe-bundle FILE" in result.stderr


def test_a_bundle_document_that_is_no_jwk_set_is_unreadable_where_it_is_the_bundle(svid: Svid) -> None:
    fields = {**values(svid), "bundle.spiffe.json": b"{"}
    assert failed(run("-", "-o", "json", stdin=yaml.safe_dump(secret(fields)))) == {"B1"}
    del fields["ca.crt"]
    result = run("-", stdin=yaml.safe_dump(secret(fields)))
    assert result.exit_code == 2
    assert 'data["bundle.spiffe.json"]: the bundle document is not JSON' in result.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": {"tls.crt": "%%%"}}, 'data["tls.crt"]: is not base64; encode it, or write it under stringData'),
        ({"data": {"tls.crt": 5}}, 'data["tls.crt"]: is not text; quote it in the manifest'),
        ({"data": None}, "tls.crt is missing"),
        ({"data": ["tls.crt"]}, "tls.crt is missing"),
        ({"metadata": None}, "Secret without a name"),
        ({"metadata": {"name": "\x1b[2J"}, "data": None}, "Secret '\\x1b[2J': tls.crt is missing"),
    ],
)
def test_a_strange_secret_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    result = run("-", stdin=yaml.safe_dump({**secret({}), **change}))
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "standard input: holds no Secret; give what `kubectl get secret NAME -o yaml` prints"),
        (b"kind: ConfigMap", "holds no Secret"),
        (b"hello", "holds no Secret"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"{", "is not JSON: Expecting property name enclosed in double quotes at line 1"),
        (b"kind: [", "is not YAML at line 1"),
        (b"a: *b", "is not YAML"),
        (b"!!python/object:os.system {}", "is not YAML"),
        (b"[" * 100_000, "is not YAML"),
        (b"x" * (16 * 2**20 + 1), "has more than 16777216 bytes"),
    ],
)
def test_what_is_no_manifest_is_said(text: bytes, words: str) -> None:
    result = run("-", stdin=text)
    assert result.exit_code == 2
    assert words in result.stderr
    assert isinstance(result.exception, SystemExit)


def test_a_broken_manifest_is_not_quoted(svid: Svid) -> None:
    key = key_pem(svid.key)
    encoded = base64.b64encode(key).decode()
    result = run("-", stdin=f"kind: Secret\ndata:\n  tls.key: {encoded}: {encoded}\n")
    assert result.exit_code == 2
    assert "standard input: is not YAML at line 3" in result.stderr
    assert encoded[:20] not in result.output


def test_a_broken_key_file_is_not_quoted(folder: Path) -> None:
    text = (folder / "tls.key").read_bytes().replace(b"M", b"!", 1)
    (folder / "tls.key").write_bytes(text)
    result = run(*sorted(map(str, folder.iterdir())))
    assert result.exit_code == 2
    assert_no_key(result, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    result = run(str(tmp_path / "none.yaml"))
    assert result.exit_code == 2
    assert "none.yaml: No such file or directory; give a file that exists and can be read" in result.stderr


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert run(str(tmp_path)).exit_code == 2


def test_two_certificates_are_too_many(folder: Path) -> None:
    result = run(str(folder / "tls.crt"), str(folder / "tls.crt"), str(folder / "ca.crt"))
    assert result.exit_code == 2
    assert "is a second certificate beside" in result.stderr


def test_a_key_beside_a_secret_is_refused(folder: Path, svid: Svid) -> None:
    result = run("-", "--key", str(folder / "tls.key"), stdin=yaml.safe_dump(secret(values(svid))))
    assert result.exit_code == 2
    assert "is given beside a Secret" in result.stderr


def test_certificate_and_key_may_share_a_file(folder: Path) -> None:
    combined = folder / "combined.pem"
    combined.write_bytes((folder / "tls.key").read_bytes() + (folder / "tls.crt").read_bytes())
    result = run(str(combined), str(folder / "ca.crt"), "-o", "json")
    assert outcomes(result)["K1"] == "pass"


def test_a_certificate_alone_asks_for_a_bundle(folder: Path) -> None:
    result = run(str(folder / "tls.crt"))
    assert result.exit_code == 2
    assert "tls.crt: there is no trust bundle; give one with --bundle" in result.stderr


def test_a_bundle_alone_asks_for_a_certificate(folder: Path) -> None:
    result = run(str(folder / "ca.crt"))
    assert result.exit_code == 2
    assert "there is no certificate; give one with --cert FILE" in result.stderr


def test_all_of_the_cluster_and_one_do_not_go_together() -> None:
    result = run("-A", "svid/orders")
    assert result.exit_code == 2
    assert "-A is for every SVID of the cluster" in result.stderr


@pytest.mark.parametrize("at", ["yesterday", "2026-11-22", "2026-13-01T00:00:00Z"])
def test_a_time_that_is_none_is_a_usage_error(at: str) -> None:
    result = run("-", at=at)
    assert result.exit_code == 2
    assert "write for example 2026-12-31T00:00:00Z" in result.stderr


def test_foreign_text_is_neither_markup_nor_control() -> None:
    odd = an_svid(leaf={"uris": (b"spiffe://example.org/[red]\x1b[31m",)})
    result = run("-", stdin=yaml.safe_dump(secret(values(odd))))
    assert result.exit_code == 1
    assert "\x1b" not in result.output
    assert "spiffe://example.org/[red]\\x1b[31m" in result.output


def test_a_secret_from_anywhere_is_judged_by_the_same_door(svid: Svid) -> None:
    """What the command that reads from a cluster calls."""
    report = Question(NOW, "example.org").about_secret(secret(values(svid)))
    assert (report.name, report.verdict, report.error) == ("Secret shop/orders-svid", "pass", "")
