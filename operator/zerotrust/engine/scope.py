"""Which namespaces the operator works in, and that what it does not know it does not decide (docs/adr/0013)."""

from collections.abc import Collection

from zerotrust.common import naming
from zerotrust.common.naming import Ref

_RECORDS = (naming.ISOLATION_RECORD_SUFFIX, naming.BUNDLE_RECORD_SUFFIX)


class Scope:
    """The whole cluster, or the namespaces that are named and the operator's own.

    A namespace is unread until everything in it was listed once. Objects of unread and of other namespaces are unknown, not
    absent: no decision is made about them, and none of what the operator remembers of them is touched.
    """

    def __init__(self, operator_namespace: str, watched: Collection[str] = ()) -> None:
        """`watched` are names of namespaces; without any, the whole cluster is watched."""
        self.operator_namespace = operator_namespace
        self.namespaces = tuple(sorted({*watched, operator_namespace})) if watched else ()
        self.unread = {one for one in self.namespaces if one != operator_namespace}

    def covers(self, namespace: str) -> bool:
        """Tell whether what is in a namespace is known; the empty name stands for what is in none."""
        return not self.namespaces or not namespace or (namespace in self.namespaces and namespace not in self.unread)

    def decides(self, ref: Ref) -> bool:
        """Tell whether a key of work is about something that is known."""
        return self.covers(self.about(ref))

    def about(self, ref: Ref) -> str:
        """The namespace that an object or a key is about: that of a record of the operator's is in the record's name."""
        if ref.kind == "IdentityProvider":
            return ""  # named by its TrustDomain, which has no namespace
        if ref.kind == "Namespace":
            return ref.name
        if ref.kind == "ConfigMap" and ref.namespace == self.operator_namespace:
            for suffix in _RECORDS:
                if ref.name.endswith(suffix):
                    return ref.name.removesuffix(suffix)
            if naming.api_keys_shard(ref.name) is not None:
                return ref.name.rpartition(naming.API_KEYS_SUFFIX)[0]
        return ref.namespace
