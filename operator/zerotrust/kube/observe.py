"""From the API server's bodies to what the cache keeps; on the way, authority keys go into the key ring and nowhere else."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.common import observed
from zerotrust.engine.cache import Change
from zerotrust.gatekeeper import observed as gatekeeper
from zerotrust.gatekeeper.templates import TEMPLATES
from zerotrust.identity.resource import ServiceIdentitySpec
from zerotrust.pki import keys, secret
from zerotrust.pki.x509 import authority_id
from zerotrust.policy import reading
from zerotrust.trustdomain.authority import KeyRing, NotSignable
from zerotrust.trustdomain.resource import TrustDomainSpec

logger = logging.getLogger(__name__)

Body = Mapping[str, Any]


class Observer:
    """Reduces objects; the only code that sees whole Secrets."""

    def __init__(self, operator_namespace: str, key_ring: KeyRing) -> None:
        self._namespace, self._key_ring = operator_namespace, key_ring
        self._kinds: dict[str, Callable[[Body], Any]] = {
            "Secret": self._secret,
            "ConfigMap": observed.config_map,
            "Namespace": lambda body: observed.plain("Namespace", body),
            "ServiceAccount": lambda body: observed.plain("ServiceAccount", body),
            "ControllerRevision": reading.observe_revision,
            "EndpointSlice": observed.endpoint_slice,
            "NetworkPolicy": observed.network_policy,
            "Pod": observed.pod,
            "ConstraintTemplate": gatekeeper.template,
            "ValidatingWebhookConfiguration": gatekeeper.webhook_configuration,
            "ValidatingAdmissionPolicy": lambda body: observed.plain("ValidatingAdmissionPolicy", body),
            **dict.fromkeys(TEMPLATES, gatekeeper.constraint),
            "TrustPolicy": reading.observe,
            "TrustDomain": lambda body: observed.custom_resource("TrustDomain", TrustDomainSpec, body),
            "ApiKey": lambda body: observed.custom_resource("ApiKey", ApiKeySpec, body),
            "ServiceIdentity": lambda body: observed.custom_resource("ServiceIdentity", ServiceIdentitySpec, body),
        }

    def __call__(self, kind: str, body: Body) -> Any:
        """Return the trimmed object."""
        return self._kinds[kind](body)

    def forget(self, change: Change) -> None:
        """Drop an authority's key when its Secret is gone or holds it no longer: what was taken away must not sign."""
        if change.ref.kind != "Secret" or change.ref.namespace != self._namespace or change.old is None:
            return
        before, after = _authority_id(change.old), _authority_id(change.new)
        if before is not None and before != after:
            self._key_ring.forget(before)

    def _secret(self, body: Body) -> secret.ObservedSecret:
        reduced = secret.observe(body)
        facts = reduced.certificate
        if reduced.meta.namespace == self._namespace and facts is not None and facts.signs and facts.key_matches:
            try:
                key = keys.from_pem(secret.value_of(body, secret.PRIVATE_KEY))
                self._key_ring.load(facts.chain()[0], key)
            except (keys.UnreadableKey, NotSignable):
                logger.warning("authority key not usable", extra={"object": str(reduced.meta.ref)})
        return reduced


def _authority_id(reduced: secret.ObservedSecret | None) -> str | None:
    """The id of the authority whose key a Secret holds, or None."""
    facts = reduced.certificate if reduced is not None else None
    if facts is None or not facts.signs or not facts.key_matches:
        return None
    return authority_id(facts.chain()[0].public_key())  # type: ignore[arg-type]
