"""cert-manager's Certificates as ServiceIdentities: who uses the Secret, and what of the certificate an SVID can be."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from zerotrust.common import durations
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.resource import parse
from zerotrust.identity.resource import Certificate, SecretTemplate
from zerotrust.importing.asked import AUTHORITIES, asked, is_own_service, key_algorithm
from zerotrust.importing.cert_manager import DEFAULT_DURATION, CertificateSpec, issuer_of, read_certificates
from zerotrust.importing.domain import Domain
from zerotrust.importing.drafts import Draft, Drafts
from zerotrust.importing.objects import Pod, SecretUse, World
from zerotrust.importing.report import Report
from zerotrust.policy.directory import Workload

LONGEST = timedelta(hours=8760)


@dataclass
class Certificates:
    """Translates Certificates; `keep_names` writes the SVID into the Secret that cert-manager has written so far."""

    world: World
    drafts: Drafts
    domain: Domain
    report: Report
    keep_names: bool = False

    def translate(self) -> None:
        """Fill in the drafts of the ServiceAccounts whose pods use the certificates."""
        for ref, spec in read_certificates(self.world):
            if not self._is_for_workloads(ref, spec):
                continue
            users = self._users(ref.namespace, spec.secret_name)
            if not users:
                why = f"no pod that was read uses Secret {spec.secret_name}"
                self.report.leave(ref, "spec.secretName", why, "keep it if an Ingress or Gateway uses it; or delete it")
                continue
            if len(users) > 1:
                names = ", ".join(owner.name for owner in users)
                text = f"Secret {spec.secret_name} is shared by the ServiceAccounts {names}: each gets a key of its own"
                self.report.note(ref, "spec.secretName", text)
            for path, why, instead in asked(spec, self.domain, users):
                self.report.leave(ref, path, why, instead)
            for owner, places in users.items():
                self._identity(ref, spec, owner, places)

    def _is_for_workloads(self, ref: Ref, spec: CertificateSpec) -> bool:
        if spec.is_ca:
            instead = "to sign by it, put it into the operator's namespace and name it in a TrustDomain: source: Secret"
            self.report.leave(ref, "spec.isCA", "an authority is no workload's identity", instead)
            return False
        issuer = issuer_of(self.world, ref.namespace, spec.issuer_ref)
        kind = next(iter(issuer), "") if issuer else ""
        name = f"{spec.issuer_ref.kind} {spec.issuer_ref.name}"
        if kind == "acme":
            why = f"{name} is ACME: a public certificate for clients that do not know the trust domain"
            self.report.leave(
                ref, "spec.issuerRef", why, "keep it for the edge, and give its workload an identity beside it"
            )
            return False
        if kind in AUTHORITIES:
            text = (
                f"{name} is replaced by the authority of {self.domain.ref}: verify peers by both until all have moved"
            )
            self.report.note(ref, "spec.issuerRef", text)
        else:
            found = kind or "not among what was read, or of another group"
            why = f"{name} is {found}: the trust domain's authority signs instead"
            instead = "to stay below the same root, let it sign an intermediate and name that in the TrustDomain: source: Secret"
            self.report.leave(ref, "spec.issuerRef", why, instead)
        return True

    def _users(self, namespace: str, secret: str) -> dict[Workload, list[tuple[Pod, SecretUse]]]:
        found: dict[Workload, list[tuple[Pod, SecretUse]]] = {}
        for pod in self.world.pods:
            for use in pod.secrets if pod.namespace == namespace else ():
                if use.secret == secret:
                    found.setdefault(pod.owner, []).append((pod, use))
        return found

    def _identity(self, ref: Ref, spec: CertificateSpec, owner: Workload, places: list[tuple[Pod, SecretUse]]) -> None:
        first = owner not in self.drafts.by_owner or "certificate" not in self.drafts.by_owner[owner].spec
        draft = self.drafts.of(owner, ref)
        if len(owner.name) > 63:
            why = f"ServiceAccount {owner} has a name of more than 63 characters"
            self.report.leave(ref, "spec.secretName", why, "give the workload a ServiceAccount with a shorter name")
            del self.drafts.by_owner[owner]
            return
        if owner.name == "default":
            text = f"{places[0][0].origin} runs as ServiceAccount default: every pod without one of its own is this identity"
            self.report.note(ref, "spec.secretName", f"{text}; give it a ServiceAccount")
        certificate = self._certificate(ref, spec)
        if not first and {**draft.spec["certificate"], "dnsNames": 0} != {**certificate, "dnsNames": 0}:
            why = f"{draft.ref} has lifetime and key of an other Certificate, and one identity has one certificate"
            self.report.leave(ref, "spec", why, "let both ask for the same, or keep this one")
        merged = {**certificate, **draft.spec.get("certificate", {})}
        names = [*draft.spec.get("certificate", {}).get("dnsNames", ()), *certificate.get("dnsNames", ())]
        if names:
            merged["dnsNames"] = sorted(set(names))
        draft.spec["certificate"] = merged
        self._secret(ref, spec, draft, first=first)
        self._say_where(ref, spec, draft, places)

    def _certificate(self, ref: Ref, spec: CertificateSpec) -> dict[str, Any]:
        wanted: dict[str, Any] = {}
        for field, text in (("duration", spec.duration), ("renewBefore", spec.renew_before)):
            if text is not None and (length := self._length(ref, field, text)) is not None:
                wanted[field] = durations.render(length)
                if field == "duration":
                    self._limit(ref, length)
        if spec.duration is None:
            given = durations.render(self.domain.spec.identities.duration)
            text = f"was {DEFAULT_DURATION} by default, and is that of {self.domain.ref} now: {given}"
            self.report.note(ref, "spec.duration", text)
        if spec.renew_before_percentage is not None:
            wanted["renewBeforePercentage"] = spec.renew_before_percentage
        if (algorithm := key_algorithm(spec)) is not None:
            wanted["keyAlgorithm"] = algorithm
            if algorithm not in self.domain.key_algorithms:
                self.domain.key_algorithms.append(algorithm)
            if self.domain.given and algorithm not in self.domain.spec.identities.key_algorithms:
                instead = f"add {algorithm} to identities.keyAlgorithms of {self.domain.ref}"
                self.report.leave(ref, "spec.privateKey", f"{self.domain.ref} does not allow {algorithm}", instead)
        if spec.private_key.rotation_policy == "Never":
            wanted["keyRotation"] = "Never"
        wanted["dnsNames"] = [one for one in spec.dns_names if is_own_service(one, ref.namespace)]
        if not wanted["dnsNames"]:
            del wanted["dnsNames"]
        for field in list(wanted):
            try:
                parse(Certificate, {field: wanted[field]}, "")
            except SpecError as error:
                self.report.leave(ref, f"spec.{field}", str(error), "write a value that a ServiceIdentity can have")
                del wanted[field]
        try:
            parse(Certificate, wanted, "")
        except SpecError as error:
            self.report.leave(ref, "spec.renewBefore", str(error), "write one of them, shorter than duration")
            wanted.pop("renewBefore", None)
        return wanted

    def _length(self, ref: Ref, field: str, text: str) -> timedelta | None:
        try:
            return durations.parse(text)
        except ValueError as error:
            self.report.leave(ref, f"spec.{field}", str(error), "write it in hours, for example 720h")
            return None

    def _limit(self, ref: Ref, length: timedelta) -> None:
        self.domain.max_duration = max(self.domain.max_duration, min(length, LONGEST))
        longest = self.domain.spec.identities.max_duration
        if self.domain.given and length > longest:
            why = f"{durations.render(length)} is longer than {self.domain.ref} signs, {durations.render(longest)}"
            self.report.leave(ref, "spec.duration", why, "raise its identities.maxDuration, or take a shorter one")

    def _secret(self, ref: Ref, spec: CertificateSpec, draft: Draft, *, first: bool) -> None:
        wanted: dict[str, Any] = {"name": spec.secret_name} if self.keep_names else {}
        for field, values in (
            ("labels", spec.secret_template.labels),
            ("annotations", spec.secret_template.annotations),
        ):
            try:
                parse(SecretTemplate, {field: values}, "")
                if values:
                    wanted[field] = dict(values)
            except SpecError as error:
                self.report.leave(ref, f"spec.secretTemplate.{field}", str(error), "leave it out")
        there = draft.spec.get("secret", {})
        if not first and self.keep_names and there.get("name") != spec.secret_name:
            why = f"{draft.ref} has one Secret, {there.get('name')}"
            self.report.leave(ref, "spec.secretName", why, "mount that one instead")
        if merged := {**wanted, **there}:
            draft.spec["secret"] = merged

    def _say_where(self, ref: Ref, spec: CertificateSpec, draft: Draft, places: list[tuple[Pod, SecretUse]]) -> None:
        new = draft.spec.get("secret", {}).get("name", f"{draft.name}-svid")
        for pod, use in places:
            if use.is_variable:
                text = f"{pod.origin}: {use.place} take Secret {spec.secret_name}, and never see a renewal: mount {new}"
                self.report.note(ref, "spec.secretName", text)
            elif new != spec.secret_name:
                self.report.note(ref, "spec.secretName", f"{pod.origin}: mount Secret {new} in {use.place}")
