"""The API server itself, without Gatekeeper, decides gator's suites as gator does.

Gatekeeper makes a ValidatingAdmissionPolicy of each template (pkg/drivers/k8scel/transform/make_vap_objects.go). The API
server compiles and type-checks it anew and refuses more than gator does, for example variables whose names CEL reserves.
"""

import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.controlplane import EXISTING_CLUSTER, ControlPlane
from tests.support.gator import ROOT, TEMPLATES

# Cluster-wide policies, and the namespace that the suites name: a control plane of their own.
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide policies"),
]

Body = dict[str, Any]

SUITES = ROOT / "tests" / "gatekeeper"
NAMESPACE = "shop"
SECONDS = 60.0
GROUP = "constraints.gatekeeper.sh"
RESOURCES = {"Pod": "api/v1", "Service": "api/v1", "Endpoints": "api/v1", "EndpointSlice": "apis/discovery.k8s.io/v1"}
REFUSED = re.compile(r"ValidatingAdmissionPolicy '.+' with binding '.+' denied request: (.+)", re.DOTALL)


def refusing(folder: Path) -> Iterator[tuple[Path, Body]]:
    """The tests with creations that are refused, with the folder of each."""
    for test in yaml.safe_load((folder / "suite.yaml").read_text())["tests"]:
        if any(message(case) and creation(folder, case) for case in test.get("cases", [])):
            yield folder, test


def message(case: Body) -> str | None:
    """What a refusal says, as a regular expression; None where there is to be none."""
    return next((one["message"] for one in case["assertions"] if "message" in one), None)


def creation(folder: Path, case: Body) -> Body | None:
    given: Body = yaml.safe_load((folder / case["object"]).read_text())
    is_creation = given["kind"] == "AdmissionReview" and given["request"]["operation"] == "CREATE"
    return given["request"] if is_creation else None


TESTS = [one for folder in sorted(SUITES.iterdir()) if folder.is_dir() for one in refusing(folder)]


class Server:
    """Creates objects, in a dry run and as another user, over one connection's settings."""

    def __init__(self, plane: ControlPlane) -> None:
        self._url = plane.url
        self._tls = ssl.create_default_context(cafile=plane.authority)
        self._tls.load_cert_chain(plane.admin_certificate, plane.admin_key)

    def refusal(self, body: Body, user: str) -> str | None:
        """The message with which the API server refuses to create the object; None where it does not."""
        kind = body["kind"]
        place = f"{RESOURCES[kind]}/namespaces/{NAMESPACE}/{kind.lower()}{'' if kind.endswith('s') else 's'}"
        headers = {"Content-Type": "application/json", "Impersonate-User": user, "Impersonate-Group": "system:masters"}
        request = urllib.request.Request(f"{self._url}/{place}?dryRun=All", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, context=self._tls):
                return None
        except urllib.error.HTTPError as error:
            return str(json.load(error)["message"])


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    templates = [yaml.safe_load(path.read_text()) for path in sorted(TEMPLATES.glob("*.yaml"))]
    with ControlPlane() as plane:
        apply(plane, *map(constraint_crd, templates))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        apply(plane, *map(native_policy, templates))
        plane.kubectl("create", "namespace", NAMESPACE)
        plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", NAMESPACE, "--timeout=60s")
        for account in service_accounts():
            plane.kubectl("create", "serviceaccount", account, "-n", NAMESPACE)
        yield plane


def service_accounts() -> set[str]:
    """Those of the suites' pods: the API server refuses a pod whose ServiceAccount does not exist."""
    cases = [(folder, case) for folder, test in TESTS for case in test["cases"]]
    objects = [request["object"] for folder, case in cases if (request := creation(folder, case))]
    pods = [one.get("spec", {}) for one in objects if one["kind"] == "Pod"]
    return {pod["serviceAccountName"] for pod in pods if pod.get("serviceAccountName")} - {"default"}


def apply(plane: ControlPlane, *objects: Body) -> None:
    plane.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def kind_of(template: Body) -> str:
    kind: str = template["spec"]["crd"]["spec"]["names"]["kind"]
    return kind


def constraint_crd(template: Body) -> Body:
    """Return the CRD of the template's constraints, as far as an expression can see it."""
    kind, parameters = kind_of(template), template["spec"]["crd"]["spec"]["validation"]["openAPIV3Schema"]
    match = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    properties = {"match": match, "enforcementAction": {"type": "string"}, "parameters": parameters}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}
    version = {"name": "v1beta1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "plural": kind.lower(), "singular": kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.lower()}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Cluster", "names": names, "versions": [version]},
    }


def native_policy(template: Body) -> Body:
    source = template["spec"]["targets"][0]["code"][0]["source"]
    parameters = "!has(params.spec) ? null : !has(params.spec.parameters) ? null : params.spec.parameters"
    rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": ["*"]}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": template["metadata"]["name"]},
        "spec": {
            "paramKind": {"apiVersion": f"{GROUP}/v1beta1", "kind": kind_of(template)},
            "failurePolicy": source["failurePolicy"],
            "matchConstraints": {"resourceRules": [rule]},
            "matchConditions": source["matchCondition"],
            "variables": [{"name": "params", "expression": parameters}, *source["variables"]],
            "validations": source["validations"],
        },
    }


def binding(constraint: Body) -> Body:
    policy = constraint["kind"].lower()
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": f"{policy}-{constraint['metadata']['name']}"},
        "spec": {
            "policyName": policy,
            "paramRef": {"name": constraint["metadata"]["name"], "parameterNotFoundAction": "Deny"},
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}},
            "validationActions": ["Deny"],
        },
    }


@pytest.mark.parametrize(("folder", "test"), TESTS, ids=[f"{folder.name}-{test['name']}" for folder, test in TESTS])
def test_the_api_server_decides_as_gator_does(plane: ControlPlane, folder: Path, test: Body) -> None:
    constraint = yaml.safe_load((folder / test["constraint"]).read_text())
    bound = binding(constraint)
    server = Server(plane)
    expected = [(case["name"], request, message(case)) for case in test["cases"] if (request := creation(folder, case))]
    probe = next(request for _, request, refusal in expected if refusal)
    apply(plane, constraint, bound)
    try:
        wait_until(lambda: is_refused(server, probe))
        wrong = [(name, refusal) for name, request, refusal in expected if not agrees(server, request, refusal)]
    finally:
        plane.kubectl("delete", "validatingadmissionpolicybinding", bound["metadata"]["name"])
        wait_until(lambda: not is_refused(server, probe))
    assert not wrong


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_refused(server: Server, request: Body) -> bool:
    return bool(REFUSED.search(server.refusal(request["object"], request["userInfo"]["username"]) or ""))


def agrees(server: Server, request: Body, expected: str | None) -> bool:
    """Tell whether the server refuses as is expected; what is no valid object at all is none of the policies' business."""
    refusal = server.refusal(request["object"], request["userInfo"]["username"])
    found = REFUSED.search(refusal) if refusal else None
    if found is None:
        return expected is None if refusal is None else " is invalid: " in refusal
    return expected is not None and re.search(expected, found[1].strip()) is not None
