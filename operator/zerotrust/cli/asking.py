"""`zerotrust renew`, `rotate` and `revoke`: what a person asks the operator to do now, whatever the kind."""

from datetime import datetime, timedelta
from typing import Any, NoReturn

import click

from zerotrust.cli import identity_requests, key_revoke, key_rotate
from zerotrust.cli.key_cluster import Cluster, in_cluster
from zerotrust.cli.keys import choice_options
from zerotrust.cli.kinds import KINDS, Target, TargetType
from zerotrust.cli.options import (
    cluster_options,
    dry_run_option,
    namespace_option,
    operator_option,
    options,
    output_option,
    timeout_option,
)
from zerotrust.cli.policies import Moment
from zerotrust.identity.resource import KIND as SERVICE_IDENTITY

TRUST_DOMAIN, _, _, API_KEY = KINDS

_asking = options(
    namespace_option,
    dry_run_option,
    click.option("--no-wait", is_flag=True, help="Only ask; without, wait until it is done."),
    timeout_option,
    output_option,
    cluster_options,
)


@click.command()
@click.argument("target", type=TargetType(SERVICE_IDENTITY, TRUST_DOMAIN))
@_asking
def renew(
    target: Target, namespace: str | None, dry_run: bool, no_wait: bool, timeout: timedelta, **how: Any
) -> NoReturn:
    """Renew the certificate of svid/NAME now, and wait for it.

    Writes the present time into the annotation zerotrust.dev/rotate-requested-at, which a deployment from git leaves alone.
    It acts once. While a request is under way nothing is written anew.

    Exits with 0 when it is done, with 1 when it is not in time, with 2 when it cannot be done.
    """
    if target.kind is TRUST_DOMAIN:
        raise click.UsageError(
            "A TrustDomain's authority is not renewed by a command; docs/guides/trust-domains.md says how it is replaced."
        )

    async def run(cluster: Cluster) -> int:
        ref, patience = target.ref(namespace or cluster.namespace), None if no_wait else timeout
        return await identity_requests.renew(cluster, ref, patience, how["output"], dry_run=dry_run)

    raise SystemExit(in_cluster(how["kubeconfig"], how["kube_context"], run))


@click.command()
@click.argument("target", type=TargetType(API_KEY))
@_asking
def rotate(
    target: Target, namespace: str | None, dry_run: bool, no_wait: bool, timeout: timedelta, **how: Any
) -> NoReturn:
    """Make a new key for zkey/NAME now, and wait for it; the same as `zerotrust keys rotate --wait`.

    Exits with 0 when it is done, with 1 when it is not in time, with 2 when it cannot be done.
    """

    async def run(cluster: Cluster) -> int:
        place, patience = (namespace or cluster.namespace, target.name), None if no_wait else timeout
        return await key_rotate.carry_out(cluster, place, patience, how["output"], dry_run=dry_run)

    raise SystemExit(in_cluster(how["kubeconfig"], how["kube_context"], run))


@click.command()
@click.argument("target", type=TargetType(SERVICE_IDENTITY, API_KEY))
@click.option(
    "--before", type=Moment(), metavar="RFC3339", help="For svid: certificates that begin before this. [default: now]"
)
@choice_options
@operator_option
@_asking
def revoke(
    target: Target,
    before: datetime | None,
    key_ids: tuple[str, ...],
    current: bool,
    everything: bool,
    operator_namespace: str,
    namespace: str | None,
    dry_run: bool,
    no_wait: bool,
    timeout: timedelta,
    **how: Any,
) -> NoReturn:
    """Revoke certificates of svid/NAME, or keys of zkey/NAME, for good, and wait until that is so.

    For an identity writes the annotation zerotrust.dev/revoke-before, and a new certificate follows at once; what was revoked
    stays so when the annotation is removed. For an ApiKey it is the same as `zerotrust keys revoke --wait`: give --key-id,
    --current or --all, or nothing to see which keys are good.

    Exits with 0 when it is done, with 1 when it is not in time, with 2 when it cannot be done.
    """
    choice = key_revoke.Choice(key_ids, current, everything)
    if target.kind is API_KEY and before is not None:
        raise click.UsageError("--before is for svid; for keys give --key-id, --current or --all.")
    if target.kind is not API_KEY and choice:
        raise click.UsageError(
            "--key-id, --current and --all are for zkey; for certificates give --before, or nothing."
        )

    async def run(cluster: Cluster) -> int:
        place, patience = target.ref(namespace or cluster.namespace), None if no_wait else timeout
        if target.kind is not API_KEY:
            return await identity_requests.revoke(cluster, place, before, patience, how["output"], dry_run=dry_run)
        key = (place.namespace, place.name)
        return await key_revoke.carry_out(
            cluster, key, choice, operator_namespace, patience, how["output"], dry_run=dry_run
        )

    raise SystemExit(in_cluster(how["kubeconfig"], how["kube_context"], run))
