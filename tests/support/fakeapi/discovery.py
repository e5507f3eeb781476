"""The documents by which clients find out what is served."""

from __future__ import annotations

from collections.abc import Collection

from .resources import Object, ResourceType

_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
_VERSION = {
    "major": "1",
    "minor": "37",
    "gitVersion": "v1.37.0",
    "gitTreeState": "clean",
    "goVersion": "go1.26.0",
    "compiler": "gc",
    "platform": "linux/amd64",
}


def document(path: str, resources: Collection[ResourceType]) -> Object | None:
    """The discovery document at `path`, or None."""
    match path.strip("/").split("/"):
        case ["version"]:
            return dict(_VERSION)
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            groups = sorted({resource.group for resource in resources if resource.group})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(it, resources) for it in groups]}
        case ["apis", group] if any(resource.group == group for resource in resources if group):
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, resources)}
        case ["api", version]:
            return _resource_list("", version, resources)
        case ["apis", group, version]:
            return _resource_list(group, version, resources)
    return None


def _group(group: str, resources: Collection[ResourceType]) -> Object:
    versions = [
        {"groupVersion": f"{group}/{version}", "version": version}
        for version in sorted({resource.version for resource in resources if resource.group == group})
    ]
    return {"name": group, "versions": versions, "preferredVersion": versions[-1]}


def _resource_list(group: str, version: str, resources: Collection[ResourceType]) -> Object | None:
    served = [resource for resource in resources if (resource.group, resource.version) == (group, version)]
    if not served:
        return None
    listed: list[Object] = []
    for resource in served:
        common = {"singularName": resource.singular, "namespaced": resource.namespaced, "kind": resource.kind}
        short_names = {"shortNames": list(resource.short_names)} if resource.short_names else {}
        listed.append({"name": resource.plural, **common, "verbs": _VERBS, **short_names})
        if resource.status_subresource:
            status = {**common, "singularName": "", "verbs": ["get", "patch", "update"]}
            listed.append({"name": f"{resource.plural}/status", **status})
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}
