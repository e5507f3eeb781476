"""The consumer's Secret: the one place where an API key stands in plaintext, and which only the holder's namespace sees."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from zerotrust.apikey.key import ApiKeyText, Digest, KeyID
from zerotrust.apikey.lifecycle import Contents
from zerotrust.apikey.memory import Key, Memory
from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.apikey.rotation import good_until
from zerotrust.apikey.snapshot import Fingerprint, SecretView
from zerotrust.common import naming, times
from zerotrust.common.naming import Ref
from zerotrust.common.plan import Apply, Copy
from zerotrust.pki.secret import ObservedSecret, digest, encode


class Names(NamedTuple):
    """The data keys of a format."""

    current: str
    previous: str
    key_id: str
    expires: str


FORMATS: Mapping[str, Names] = {
    "Opaque": Names("api-key", "api-key-previous", "key-id", "expires-at"),
    "Env": Names("API_KEY", "API_KEY_PREVIOUS", "API_KEY_ID", "API_KEY_EXPIRES_AT"),
}
_UNKNOWN = KeyID("")


def is_ours(observed: ObservedSecret, name: str) -> bool:
    """Tell whether the operator made a Secret for the ApiKey of this name, even if somebody took one of its labels off."""
    labels = observed.meta.labels
    component, manager = labels.get(naming.COMPONENT), labels.get(naming.MANAGED_BY)
    is_one = component == naming.COMPONENT_API_KEY or (component is None and manager == naming.OPERATOR)
    return is_one and labels.get(naming.API_KEY) == name


def view(observed: ObservedSecret, memories: Iterable[Memory]) -> SecretView:
    """Return which keys a Secret holds, recognised by their digests; what nobody remembers has an empty id."""
    known = {key.digest: key.id for memory in memories for key in memory.keys}
    names = format_of(observed)
    return SecretView(_held(observed, names.current, known), _held(observed, names.previous, known))


def format_of(observed: ObservedSecret) -> Names:
    """The data keys under which a Secret holds its keys."""
    return next((names for names in FORMATS.values() if names.current in observed.digests), FORMATS["Opaque"])


def _held(observed: ObservedSecret, data_key: str, known: Mapping[Digest, KeyID]) -> Fingerprint | None:
    found = observed.digests.get(data_key)
    if found is None or found == digest(b""):
        return None
    text = Digest("sha256:" + found.hex())
    return Fingerprint(known.get(text, _UNKNOWN), text)


def write(
    ref: Ref,
    spec: ApiKeySpec,
    name: str,
    memory: Memory,
    contents: Contents,
    candidate: ApiKeyText | None,
    there: ObservedSecret | None,
) -> Apply:
    """Return the write that makes the Secret at `ref` hold `contents`; what `there` holds already is copied, not made again."""
    names, copies = FORMATS[spec.delivery.format], dict[str, Copy]()
    data: dict[str, str | None] = {names.previous: None}
    for key_id, data_key in ((contents.current, names.current), (contents.previous, names.previous)):
        if key_id is None:
            continue
        if candidate is not None and candidate.id == key_id:
            data[data_key] = encode(candidate.reveal().encode())
        elif there is not None and (source := _source(there, memory.key(key_id))) is not None:
            copies[data_key] = Copy(there.meta.ref, source, there.digests[source])
    for data_key in copies:
        data.pop(data_key, None)
    current = memory.key(contents.current)
    return Apply(_manifest(ref, spec, name, current, data), copies=copies)


def kept(ref: Ref, spec: ApiKeySpec, name: str, current: Key) -> Apply:
    """Return what must be so in a Secret whose keys are right: labels, the key's id, when it expires."""
    return Apply(_manifest(ref, spec, name, current, {}), repairs=False)


def _manifest(
    ref: Ref, spec: ApiKeySpec, name: str, current: Key | None, data: Mapping[str, str | None]
) -> dict[str, Any]:
    names = FORMATS[spec.delivery.format]
    other = {one for each in FORMATS.values() for one in each} - set(names)
    told: dict[str, str | None] = {}
    if current is not None:
        told = {
            names.key_id: encode(current.id.encode()),
            names.expires: encode(times.render(good_until(current, spec)).encode()),
        }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": ref.name,
            "namespace": ref.namespace,
            "labels": {
                naming.MANAGED_BY: naming.OPERATOR,
                naming.COMPONENT: naming.COMPONENT_API_KEY,
                naming.API_KEY: name,
            },
        },
        "type": "Opaque",
        "data": {**dict.fromkeys(sorted(other)), **told, **data},
    }


def _source(there: ObservedSecret, key: Key | None) -> str | None:
    """Under which data key a Secret holds a key."""
    if key is None:
        return None
    names = format_of(there)
    wanted = bytes.fromhex(key.digest.removeprefix("sha256:"))
    return next((one for one in (names.current, names.previous) if there.digests.get(one) == wanted), None)
