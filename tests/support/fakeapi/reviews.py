"""TokenReview and SubjectAccessReview, out of what a test has said; the shapes are those of kube-apiserver 1.37."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .refusals import Refused
from .resources import Object

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


@dataclass
class Reviews:
    """`tokens` gives the user and the audiences of each good token, `rights` who may get policybundles in which namespace.

    Without `knows_audiences` the authenticator is one that says nothing of audiences, as some webhooks do.
    `may` allows further questions, by their spec.
    `asked_tokens` and `asked_rights` are the questions so far, in order.
    """

    tokens: dict[str, tuple[Object, list[str]]] = field(default_factory=dict)
    rights: set[tuple[str, str]] = field(default_factory=set)
    asked_tokens: list[str] = field(default_factory=list)
    asked_rights: list[Object] = field(default_factory=list)
    knows_audiences: bool = True
    may: Callable[[Object], bool] = lambda _: False
    paths = frozenset({TOKEN_REVIEWS, ACCESS_REVIEWS})

    def answer(self, path: str, body: Object) -> Object:
        kind = "TokenReview" if path == TOKEN_REVIEWS else "SubjectAccessReview"
        if body.get("kind") != kind:
            raise Refused(400, f"the object provided is no {kind}")
        spec = body["spec"]
        status = self._token(spec) if kind == "TokenReview" else self._access(spec)
        return {**body, "status": status}

    def _token(self, spec: Object) -> Object:
        self.asked_tokens.append(spec["token"])
        user, audiences = self.tokens.get(spec["token"], ({}, []))
        shared = [one for one in spec["audiences"] if one in audiences]
        if not shared:
            return {"user": {}, "error": "[invalid bearer token, token audiences are not valid]"}
        audience = {"audiences": shared} if self.knows_audiences else {}
        return {"authenticated": True, "user": user, **audience}

    def _access(self, spec: Object) -> Object:
        self.asked_rights.append(spec)
        wanted = spec["resourceAttributes"]
        policy_bundles = {"group": "zerotrust.dev", "resource": "policybundles", "verb": "get"}
        right = {key: wanted.get(key) for key in policy_bundles} == policy_bundles
        if self.may(spec) or (right and (spec["user"], wanted["namespace"]) in self.rights):
            return {"allowed": True, "reason": "RBAC: allowed by RoleBinding"}
        return {"allowed": False, "reason": ""}
