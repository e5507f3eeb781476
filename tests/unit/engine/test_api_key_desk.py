"""What counts as somebody else's edit of the record of API keys, and who hears that it was put right."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tests.support.clock import FakeClock
from zerotrust.apikey.key import Digest, KeyID
from zerotrust.apikey.memory import Key, Memory, encode
from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap, config_map, custom_resource, plain
from zerotrust.engine.apikeybook import ApiKeyBook, record_ref
from zerotrust.engine.cache import Cache
from zerotrust.engine.keydesk import Desk
from zerotrust.engine.keyrecords import ApiKeyRecordController
from zerotrust.engine.keyuses import KeyUses

OPERATOR, UID = "zerotrust-system", "uid-partner"
ISSUED = datetime(2026, 1, 1, tzinfo=UTC)
PENDING = Key(KeyID("AAAAAAAAAAAA"), Digest("sha256:" + "0" * 64), ISSUED, ISSUED + timedelta(days=1))
BEFORE = Memory("partner", (PENDING,))
AFTER = Memory("partner", (replace(PENDING, delivered=ISSUED),))
LABELS = {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_API_KEYS}


def record(memory: Memory | None, version: int = 1) -> ConfigMap:
    metadata = {"name": naming.api_keys_name("shop"), "namespace": OPERATOR, "resourceVersion": str(version)}
    data = {UID: encode(memory)} if memory is not None else {}
    return config_map({"metadata": {**metadata, "labels": LABELS}, "data": data})


def test_our_own_write_is_no_loss_when_the_watch_tells_of_it_first() -> None:
    desk = Desk(wanted={"shop": {UID: AFTER}})
    desk.miss("shop", record(BEFORE), record(AFTER))
    assert not desk.lost


def test_what_somebody_else_takes_out_or_writes_is_kept_as_it_was() -> None:
    for edited in (record(None), record(replace(AFTER, name="forged")), None):
        desk = Desk(wanted={"shop": {UID: AFTER}})
        desk.miss("shop", record(BEFORE), edited)
        assert desk.lost == {"shop": {UID: BEFORE}}


def test_an_edit_that_nobody_here_wanted_is_a_loss() -> None:
    desk = Desk()
    desk.miss("shop", record(BEFORE), record(AFTER))
    assert desk.lost == {"shop": {UID: BEFORE}}


def test_who_decided_by_what_seemed_lost_hears_when_nothing_is_to_be_written() -> None:
    cache, clock, desk = Cache(), FakeClock(), Desk()
    book = ApiKeyBook(cache, OPERATOR, lambda _: None)
    controller = ApiKeyRecordController(cache, book, OPERATOR, desk, KeyUses(book), clock)
    cache.put(plain("Namespace", {"metadata": {"name": "shop", "resourceVersion": "1"}}))
    spec = {"holder": {"name": "them"}, "audience": ["orders"]}
    metadata = {"name": "partner", "namespace": "shop", "uid": UID, "resourceVersion": "1"}
    cache.put(custom_resource("ApiKey", ApiKeySpec, {"metadata": metadata, "spec": spec}))
    cache.put(record(AFTER, version=2))
    desk.wanted["shop"], desk.lost["shop"] = {UID: AFTER}, {UID: BEFORE}

    plan = controller.reconcile(controller.snapshot(record_ref(OPERATOR, "shop")), clock.now())
    assert not plan.applies
    assert [touch.ref for touch in plan.touches] == [Ref("ApiKey", "shop", "partner")]
    assert not desk.lost
    assert not controller.reconcile(controller.snapshot(record_ref(OPERATOR, "shop")), clock.now()).touches
