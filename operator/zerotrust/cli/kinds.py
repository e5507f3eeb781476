"""Our four kinds by every name that people type, and `KIND/NAME` as an argument."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import click
from click.shell_completion import CompletionItem

from zerotrust.apikey.resource import KIND as API_KEY
from zerotrust.cli.keyless import LIKE_A_KEY
from zerotrust.cli.options import shape
from zerotrust.common.kind import Kind
from zerotrust.common.naming import GROUP, Ref
from zerotrust.common.resource import DNS_SUBDOMAIN
from zerotrust.identity.resource import KIND as SERVICE_IDENTITY
from zerotrust.policy.resource import KIND as TRUST_POLICY
from zerotrust.trustdomain.resource import KIND as TRUST_DOMAIN

KINDS = (TRUST_DOMAIN, SERVICE_IDENTITY, TRUST_POLICY, API_KEY)
BY_NAME = {kind.name: kind for kind in KINDS}
_is_name = shape(DNS_SUBDOMAIN, 253)


def kind_called(text: str) -> Kind | None:
    """Return the kind of this name: singular, plural or short, with or without the group, in any case; None without one."""
    word = text.lower().removesuffix(f".{GROUP}")
    return next((kind for kind in KINDS if word in _names(kind)), None)


def _names(kind: Kind) -> tuple[str, ...]:
    return kind.name.lower(), kind.plural, kind.short_name


@dataclass(frozen=True)
class Target:
    """What a command is about: an object of one of our kinds."""

    kind: Kind
    name: str

    def ref(self, namespace: str) -> Ref:
        """Its place; the namespace counts where the kind has one."""
        return Ref(self.kind.name, namespace if self.kind.namespaced else "", self.name)


class TargetType(click.ParamType[Target]):
    """`KIND/NAME`, of some of the kinds."""

    name = "kind/name"

    def __init__(self, *kinds: Kind) -> None:
        self._kinds: Sequence[Kind] = kinds or KINDS

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Target:
        """Return the target; a usage error says what to write, and repeats nothing that may be an API key."""
        if isinstance(value, Target):
            return value
        word, slash, name = str(value).partition("/")
        kind = kind_called(word)
        known = ", ".join(f"{one.short_name} ({one.name})" for one in self._kinds)
        if kind is None or kind not in self._kinds:
            names = [name for one in self._kinds for name in _names(one)]
            near = get_close_matches(word.lower(), names, 1)
            said = (
                f"{word[:40]!r} is no kind that this command knows" if LIKE_A_KEY.search(word) is None else "is no kind"
            )
            self.fail(f"{said}{f' (did you mean {near[0]}?)' if near else ''}; write one of {known}", param, ctx)
        if not slash or not _is_name(name):
            self.fail(f"write KIND/NAME, for example {kind.short_name}/orders", param, ctx)
        return Target(kind, name)

    def shell_complete(self, ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer kinds, and after the slash the names that there are."""
        word, slash, name = incomplete.partition("/")
        kind = kind_called(word)
        if not slash:
            words = (f"{one.short_name}/" for one in self._kinds)
            return [CompletionItem(text) for text in words if text.startswith(incomplete)]
        if kind is None:
            return []
        from zerotrust.cli.completion import names

        return names(ctx, kind.name, kind.namespaced, f"{word}/", name)
