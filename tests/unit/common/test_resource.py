"""Reading what a user wrote: the same verdict as the API server's, and an error that names the place."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from zerotrust.common import durations
from zerotrust.common.errors import SpecError
from zerotrust.common.resource import Between, Resource, Rule, Timestamp, parse
from zerotrust.identity.resource import Certificate, ServiceIdentitySpec
from zerotrust.trustdomain.resource import TrustDomainSpec

TIME = "2026-12-31T00:00:00Z"


def refusal(model: type[Resource], body: dict[str, Any], path: str = "spec") -> str:
    with pytest.raises(SpecError) as caught:
        parse(model, body, path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"certificate": {"duration": "9000h"}}, "spec.certificate.duration: must be between 1m and 8760h"),
        (
            {"certificate": {"duration": "24"}},
            "spec.certificate.duration: '24' is not a duration; write for example 24h, 90m or 1h30m",
        ),
        ({"certificate": {"duration": 24}}, "spec.certificate.duration: must be a duration in quotes, for example 24h"),
        (
            {"certificate": {"duration": "1.5000h"}},
            "spec.certificate.duration: must have at most three decimals and nothing after the unit, for example 1.5h",
        ),
        (
            {"certificate": {"duration": "1h", "renewBefore": "2h"}},
            "spec.certificate: renewBefore must be shorter than duration",
        ),
        (
            {"rotation": {"requestedAt": "tomorrow"}},
            "spec.rotation.requestedAt: 'tomorrow' is not an RFC 3339 time; write for example 2026-12-31T00:00:00Z",
        ),
        ({"revocation": {}}, "spec.revocation.before: is required"),
        ({"issuance": "Stopped"}, "spec.issuance: must be one of 'Active' or 'Paused'"),
        ({"trustDomain": "Example.org"}, "spec.trustDomain: must match ^[a-z0-9]"),
        ({"serviceAccountName": ""}, "spec.serviceAccountName: string should have at least 1 character"),
        ({"secret": {"labels": {"team": "a b"}}}, "spec.secret.labels.team: must match ^"),
        ({"secret": {"labels": {"a b": "c"}}}, "spec.secret: labels must have valid label keys"),
        ({"selector": {}}, "spec.selector: an empty selector is refused, because it would mean everything"),
        ({"egress": []}, "spec.egress: input should be"),
    ],
)
def test_an_error_names_the_field_as_a_user_writes_it(body: dict[str, Any], message: str) -> None:
    assert refusal(ServiceIdentitySpec, body).startswith(message)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"egres": {}}, "spec.egres"),
        ({"certificate": {"durration": "24h"}}, "spec.certificate.durration"),
        ({"certificate": {"renew_before": "8h"}}, "spec.certificate.renew_before"),
        ({"egress": {"allow": [{"kubernetesApi": True}]}}, "spec.egress.allow[0].kubernetesApi"),
        ({"selector": {"matchLabels": {"a": "b"}, "matchlabels": {}}}, "spec.selector.matchlabels"),
        ({"rotation": {"at": None}}, "spec.rotation.at"),
    ],
)
def test_an_unknown_field_is_refused_with_its_path(body: dict[str, Any], path: str) -> None:
    sentence = "is not a field of this resource; remove it or correct its name"
    assert refusal(ServiceIdentitySpec, body).startswith(f"{path}: {sentence}: there are ")


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"egress": {"allow": [{"kubernetesApi": True}]}}, "cidr, kubernetesAPI, pods, ports"),
        ({"egress": {"allow": [{"pods": {"x": 1}}]}}, "namespaceSelector, podSelector"),
        ({"rotation": {"at": None}}, "requestedAt"),
    ],
    ids=["in a list", "below a list", "object"],
)
def test_the_fields_that_there_are_at_that_place_are_named(body: dict[str, Any], fields: str) -> None:
    assert refusal(ServiceIdentitySpec, body).endswith(f"correct its name: there are {fields}")


@pytest.mark.parametrize(
    ("allow", "message"),
    [
        (
            [{"kubernetesAPI": True}, {"cidr": "10.0.0.0/8", "kubernetesAPI": True}],
            "spec.egress.allow[1]: write exactly one of cidr, pods and kubernetesAPI: true",
        ),
        (
            [{"kubernetesAPI": True}, {"kubernetesAPI": True}, {"cidr": "10.0.0.0/8"}],
            "spec.egress.allow[2]: ports are required with cidr and pods; write for example ports: [{port: 443}]",
        ),
        (
            [{"cidr": "10.0.0.0/8", "ports": [{"port": 1}, {"port": 70000}]}],
            "spec.egress.allow[0].ports[1].port: input should be less than or equal to 65535",
        ),
        (
            [{"pods": {}, "ports": [{"port": 1}]}],
            "spec.egress.allow[0].pods: write namespaceSelector, podSelector or both",
        ),
        ([None], "spec.egress.allow[0]: input should be"),
    ],
)
def test_an_error_in_a_list_names_the_entry(allow: list[Any], message: str) -> None:
    assert refusal(ServiceIdentitySpec, {"egress": {"allow": allow}}).startswith(message)


def test_the_path_begins_where_the_caller_says() -> None:
    assert refusal(Certificate, {"keyRotation": "Maybe"}, "spec.rules[3]").startswith("spec.rules[3].keyRotation: ")
    assert refusal(Certificate, {"duration": "1h", "renewBefore": "1h"}, "").startswith("renewBefore must be shorter")


@pytest.mark.parametrize("port", ["443", True, 443.5, [443], "https"])
def test_numbers_are_not_made_from_something_else(port: Any) -> None:
    body = {"egress": {"allow": [{"cidr": "10.0.0.0/8", "ports": [{"port": port}]}]}}
    assert refusal(ServiceIdentitySpec, body).startswith("spec.egress.allow[0].ports[0].port: ")


@pytest.mark.parametrize("value", ["true", "yes", 1, 1.0])
def test_booleans_are_not_made_from_something_else(value: Any) -> None:
    assert refusal(TrustDomainSpec, {"default": value}).startswith("spec.default: ")
    message = "spec.allowedNamespaces.all: must be true"
    assert refusal(TrustDomainSpec, {"allowedNamespaces": {"all": value}}) == message


def test_false_is_no_way_to_say_all() -> None:
    assert refusal(TrustDomainSpec, {"allowedNamespaces": {"all": False}}).startswith("spec.allowedNamespaces.all: ")


def test_a_null_means_the_default_as_on_the_api_server() -> None:
    body = {"certificate": None, "issuance": None, "secret": {"labels": {"team": None, "tier": "a"}, "formats": None}}
    assert parse(ServiceIdentitySpec, body, "spec") == parse(
        ServiceIdentitySpec, {"secret": {"labels": {"tier": "a"}}}, "spec"
    )
    assert refusal(ServiceIdentitySpec, {"revocation": {"before": None}}) == "spec.revocation.before: is required"
    # A list's entry has no default to fall back to.
    assert refusal(ServiceIdentitySpec, {"egress": {"calls": [None]}}).startswith("spec.egress.calls[0]: ")


def test_python_code_writes_fields_by_their_python_names() -> None:
    certificate = Certificate(renew_before=timedelta(hours=8))
    assert certificate == parse(Certificate, {"renewBefore": "8h"}, "")


def test_a_resource_cannot_be_changed() -> None:
    certificate = parse(Certificate, {}, "")
    with pytest.raises(ValidationError, match="frozen"):
        certificate.__setattr__("duration", timedelta(hours=1))


class Window(Resource):
    """A toy with one rule of each sort."""

    opens: Timestamp | None = Field(default=None, description="When it opens.")
    lasts: Annotated[timedelta, Between("1m", "90m")] = Field(default=timedelta(minutes=5), description="How long.")
    glass: int = Field(default=2, description="How many panes.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.glass > 0", "glass must be there", lambda self: self.glass > 0),
        Rule("self.glass >= oldSelf.glass", "glass is never taken away"),
        Rule("self.glass < 9", "glass is heavy", lambda self: self.glass < 9),
    )


def test_a_rule_about_the_old_object_is_left_to_the_api_server() -> None:
    assert parse(Window, {"glass": 1}, "spec").glass == 1
    assert refusal(Window, {"glass": 0}) == "spec: glass must be there"
    assert refusal(Window, {"glass": 9}) == "spec: glass is heavy"


@pytest.mark.parametrize("text", ["1m", "60s", "90m", "1h30m", "1.5h", "60000ms"])
def test_the_bounds_of_a_duration_belong_to_it(text: str) -> None:
    assert parse(Window, {"lasts": text}, "spec").lasts == durations.parse(text)


@pytest.mark.parametrize("text", ["0s", "59.999s", "90m0.001s", "2h"])
def test_a_duration_outside_its_bounds_is_refused_with_both(text: str) -> None:
    assert refusal(Window, {"lasts": text}) == "spec.lasts: must be between 1m and 90m"


# What Go and Python would read differently, or only one of them at all.
@pytest.mark.parametrize("text", ["5m\n", "59.9999999s", "5.0000m", "\u0665m", "1e1m", "5us"])
def test_a_duration_that_go_may_read_differently_is_refused(text: str) -> None:
    assert refusal(Window, {"lasts": text}).startswith("spec.lasts: ")


@given(st.integers(60_000_000, 5_400_000_000).map(lambda microseconds: timedelta(microseconds=microseconds)))
def test_a_duration_may_also_be_given_in_python(lasts: timedelta) -> None:
    assert Window(lasts=lasts).lasts == lasts


@given(
    st.datetimes(datetime(1001, 1, 1), datetime(9998, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001 - timezones= adds it
    st.integers(60, 5400),
)
def test_what_is_rendered_reads_the_same(opens: datetime, seconds: int) -> None:
    window = Window(opens=opens.replace(microsecond=0), lasts=timedelta(seconds=seconds))
    written = window.model_dump(mode="json", by_alias=True)
    assert parse(Window, written, "") == window


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (TIME, datetime(2026, 12, 31, tzinfo=UTC)),
        ("2026-12-31T02:00:00+02:00", datetime(2026, 12, 31, tzinfo=UTC)),
        ("1000-01-01T00:00:00Z", datetime(1000, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_times(text: str, moment: datetime) -> None:
    assert parse(Window, {"opens": text}, "").opens == moment
    assert parse(Window, {"opens": moment}, "").opens == moment


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2026-02-30T00:00:00Z", "'2026-02-30T00:00:00Z' is not a date of the calendar"),
        ("0999-12-31T23:59:59Z", "must be a time between the years 1000 and 9999"),
        ("9999-12-31T23:59:59-00:01", "'9999-12-31T23:59:59-00:01' is not a date of the calendar"),
        (datetime(999, 1, 1, tzinfo=UTC), "must be a time between the years 1000 and 9999"),
        (1_798_675_200, "must be an RFC 3339 time in quotes"),
        ([TIME], "must be an RFC 3339 time in quotes"),
        # What YAML makes of a time without a zone, which the API server refuses.
        (datetime(2026, 12, 31), "must be an RFC 3339 time in quotes"),  # noqa: DTZ001
    ],
)
def test_what_is_no_time_is_refused(value: Any, message: str) -> None:
    assert refusal(Window, {"opens": value}).startswith(f"spec.opens: {message}")
