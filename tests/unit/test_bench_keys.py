"""What the benchmarks of API keys measure with is what they say it is."""

from collections import Counter

import pytest

from hack.bench.key_bundles import KeyBundles, mistyped, scope
from hack.bench.record_writes import kind_of, of_kinds
from zerotrust.apikey import key as keys
from zerotrust.apikey.key import BadKey
from zerotrust.opabundle import signing
from zerotrust.opabundle.archive import read

SIGNER = signing.create()


@pytest.fixture(scope="module")
def bundles() -> KeyBundles:
    return KeyBundles(200, SIGNER)


def test_the_bundle_has_so_many_keys_and_knows_those_that_are_presented(bundles: KeyBundles) -> None:
    found = read(bundles.policy(1).archive, {SIGNER.id: SIGNER.public}, scope("policy"))
    records = found.document["zerotrust_data"]["policy"]["api_keys"]
    assert len(records) == 200
    for text in bundles.good:
        key = keys.parse(text)
        assert keys.matches(key, records[key.id]["hash"])
    assert not {keys.parse(text).id for text in bundles.unknown} & records.keys()


def test_each_serial_changes_one_key_or_revokes_another(bundles: KeyBundles) -> None:
    documents = [
        read(bundles.policy(serial).archive, {SIGNER.id: SIGNER.public}, scope("policy")).document for serial in (1, 2)
    ]
    before, after = (one["zerotrust_data"]["policy"]["api_keys"] for one in documents)
    assert [key for key in before if before[key] != after[key]] == [min(before)]
    first, second = (
        read(bundles.revocations(serial).archive, {SIGNER.id: SIGNER.public}, scope("revocations")) for serial in (1, 2)
    )
    revoked = [set(one.document["zerotrust_data"]["revocations"]["keys"]) for one in (first, second)]
    assert len(revoked[0]) == 3
    assert revoked[0] ^ revoked[1] == {"000000000001", "000000000002"}


def test_a_mistyped_key_is_refused_by_its_check_alone(bundles: KeyBundles) -> None:
    for text in bundles.good:
        with pytest.raises(BadKey, match="check digits"):
            keys.parse(mistyped(text))


@pytest.mark.parametrize(
    ("namespace", "name", "kind"),
    [
        ("zerotrust-system", "shop.api-keys", "key records"),
        ("zerotrust-system", "shop.api-keys-2", "key records"),
        ("zerotrust-system", "shop.bundles", "bundle records"),
        ("zerotrust-system", "zt-reports-replica-0", "bundle servers' reports"),
        ("shop", "shop.api-keys", "other ConfigMaps"),
        ("shop", "zerotrust-opa-config", "other ConfigMaps"),
    ],
)
def test_a_config_map_is_told_by_its_place_and_name(namespace: str, name: str, kind: str) -> None:
    assert kind_of(namespace, name) == kind


def test_writes_are_told_for_each_kind_and_a_gap_is_told_too() -> None:
    counts = Counter({("zerotrust-system", "a.api-keys"): 3, ("zerotrust-system", "b.api-keys"): 1})
    whole, partial = (of_kinds(counts, 40, [complete]) for complete in (True, False))
    assert whole == ["| writes of key records | 4 of 2 objects, 0.1000 for each key, at most 3 of one |"]
    assert "ended early" in partial[0]
