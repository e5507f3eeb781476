"""The objects of cert-manager that are read: Certificate, Issuer and ClusterIssuer of cert-manager.io/v1."""

from typing import Any

from pydantic import ConfigDict, Field

from zerotrust.common.naming import Ref
from zerotrust.common.resource import Resource, parse
from zerotrust.importing.objects import Body, World

API_VERSION = "cert-manager.io/v1"
GROUP = "cert-manager.io"
DEFAULT_DURATION = "2160h"


class PrivateKey(Resource):
    """How the key is made."""

    model_config = ConfigDict(extra="allow")

    algorithm: str | None = None
    size: int | None = None
    encoding: str | None = None
    rotation_policy: str | None = None


class SecretTemplate(Resource):
    """What is copied onto the Secret."""

    model_config = ConfigDict(extra="allow")

    annotations: dict[str, str] = Field(default={})
    labels: dict[str, str] = Field(default={})


class Keystore(Resource):
    """A further file in the Secret."""

    model_config = ConfigDict(extra="allow")

    create: bool = False


class Keystores(Resource):
    """Further files in the Secret."""

    model_config = ConfigDict(extra="allow")

    jks: Keystore | None = None
    pkcs12: Keystore | None = None


class IssuerReference(Resource):
    """Who signs."""

    model_config = ConfigDict(extra="allow")

    name: str
    kind: str = "Issuer"
    group: str = GROUP


class CertificateSpec(Resource):
    """What is asked for. A field that is not here is reported, as everything is that an SVID cannot be."""

    model_config = ConfigDict(extra="allow")

    secret_name: str
    issuer_ref: IssuerReference
    duration: str | None = None
    renew_before: str | None = None
    renew_before_percentage: int | None = None
    dns_names: list[str] = Field(default=[])
    uris: list[str] = Field(default=[])
    common_name: str = ""
    is_ca: bool = Field(default=False, alias="isCA")
    usages: list[str] = Field(default=[])
    private_key: PrivateKey = PrivateKey()
    secret_template: SecretTemplate = SecretTemplate()
    keystores: Keystores = Keystores()
    revision_history_limit: int | None = None
    encode_usages_in_request: bool | None = None

    @property
    def others(self) -> dict[str, Any]:
        """Everything else that is asked for."""
        return {key: value for key, value in (self.__pydantic_extra__ or {}).items() if value not in (None, [], {}, "")}


def read_certificates(world: World) -> list[tuple[Ref, CertificateSpec]]:
    """The Certificates that were read; SpecError names a field that cannot be read."""
    return [
        (ref, parse(CertificateSpec, body.get("spec") or {}, f"{ref}: spec"))
        for _, ref, body in world.others.get("Certificate", ())
    ]


def issuer_of(world: World, namespace: str, reference: IssuerReference) -> Body | None:
    """The spec of the issuer that a Certificate names, None when it was not read."""
    place = namespace if reference.kind == "Issuer" else ""
    for _, ref, body in world.others.get(reference.kind, ()):
        if (ref.namespace, ref.name) == (place, reference.name) and reference.group == GROUP:
            return body.get("spec") or {}
    return None
