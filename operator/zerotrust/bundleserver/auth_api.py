"""TokenReview and SubjectAccessReview on the API server."""

import asyncio
from collections.abc import Mapping
from typing import Any

from zerotrust.bundleserver.auth import ReviewFailed
from zerotrust.bundleserver.caller import Subject
from zerotrust.common.naming import GROUP
from zerotrust.kube.client import Body, Client
from zerotrust.kube.errors import KubeError

RESOURCE = "policybundles"


class KubeReviews:
    """Asks the API server; whatever is not a plain yes of the documented shape is a no, and no answer is ReviewFailed."""

    def __init__(self, client: Client, seconds: float = 5.0) -> None:
        self._client, self._seconds = client, seconds

    async def authenticate(self, token: str, audience: str) -> Subject | None:
        """Whose token this is (authentication.k8s.io/v1 TokenReview); None when it is not accepted for the audience."""
        status = await self._review(
            "authentication.k8s.io/v1", "TokenReview", {"token": token, "audiences": [audience]}
        )
        if status.get("authenticated") is not True or audience not in (status.get("audiences") or ()):
            return None
        user = status.get("user")
        if not isinstance(user, Mapping) or not isinstance(user.get("username"), str) or not user["username"]:
            return None
        extra = user.get("extra") or {}
        return Subject(
            user["username"],
            str(user.get("uid") or ""),
            tuple(str(group) for group in user.get("groups") or ()),
            tuple(sorted((str(name), tuple(map(str, values or ()))) for name, values in extra.items())),
        )

    async def may_get_bundles(self, subject: Subject, namespace: str) -> bool:
        """Whether the subject may get policybundles there (authorization.k8s.io/v1 SubjectAccessReview)."""
        spec = {
            "user": subject.user,
            "uid": subject.uid,
            "groups": list(subject.groups),
            "extra": {name: list(values) for name, values in subject.extra},
            "resourceAttributes": {"group": GROUP, "resource": RESOURCE, "verb": "get", "namespace": namespace},
        }
        status = await self._review("authorization.k8s.io/v1", "SubjectAccessReview", spec)
        return status.get("allowed") is True and status.get("denied") is not True

    async def _review(self, version: str, kind: str, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        body: Body = {"apiVersion": version, "kind": kind, "metadata": {}, "spec": spec}
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._client.create(body)
        except KubeError as error:
            raise ReviewFailed(f"the API server did not answer a {kind} ({type(error).__name__})") from None
        except TimeoutError:
            raise ReviewFailed(f"the API server did not answer a {kind} in {self._seconds:g} s") from None
        status = answer.get("status")
        if not isinstance(status, Mapping):
            raise ReviewFailed(f"the API server answered a {kind} without a status")
        return status
