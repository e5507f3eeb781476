package zerotrust.authz_keys_test

import data.zerotrust.authz

_now := 1795348800

_server := "spiffe://example.org/ns/shop/sa/orders"

_client := "spiffe://example.org/ns/web/sa/frontend"

_meta := {"schema": 1, "revision": "r", "not_after": 100000000000}

_id := "Partner00001"

_key := _with_check(sprintf("sk_%s.%s", [_id, "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA"]))

_with_check(start) := concat("", [start, substring(crypto.sha256(start), 0, 8)])

_record := {
	"hash": sprintf("sha256:%s", [crypto.sha256(_key)]),
	"name": "partner",
	"scopes": ["read", "write"],
	"audience": [_server],
	"not_before": _now - 10,
	"not_after": _now + 10,
}

_asking(principal) := {
	"policy": "p",
	"rule": "r",
	"effect": "Allow",
	"port": 8443,
	"protocol": "TCP",
	"principal": object.union({"kind": "key", "name": "", "scopes": []}, principal),
}

_answer(row, record, revoked, headers) := answer if {
	asked := {
		"server": _server,
		"source": {"principal": _client},
		"request": {"method": "GET", "path": "/a", "port": 8443, "headers": headers},
	}
	policy := {
		"meta": _meta,
		"api_keys": {_id: record},
		"servers": {_server: {"trust_domain": "example.org", "grants": {_client: [row]}}},
	}
	answer := authz.decision with input as asked
		with time.now_ns as _now * 1000000000
		with data.zerotrust_data.policy as policy
		with data.zerotrust_data.revocations as {"meta": _meta, "keys": revoked}
}

_presenting(headers) := _answer(_asking({"name": "partner"}), _record, {}, headers)

_recorded(changes) := _answer(_asking({"name": "partner"}), object.union(_record, changes), {}, {"x-api-key": _key}).reason

_asked(principal) := _answer(_asking(principal), _record, {}, {"x-api-key": _key}).reason

test_a_good_key_is_accepted_in_either_header_and_in_both if {
	every headers in [
		{"X-API-Key": _key}, {"Authorization": sprintf("ApiKey %s", [_key])}, {"authorization": sprintf("aPIkEY   %s", [_key])},
		{"x-api-key": _key, "authorization": sprintf("ApiKey %s", [_key])}, {"x-api-key": _key, "authorization": "Bearer x"},
	] {
		answer := _presenting(headers)
		answer.reason == "allowed"
		answer.key_id == _id
		not answer.unknown_key_id
	}
}

test_what_comes_twice_is_no_key if {
	scheme := sprintf("ApiKey %s", [_key])
	every headers in [
		{}, {"x-api-key": [_key]}, {"x-api-key": [_key, _key]}, {"x-api-key": sprintf("%s,%s", [_key, _key])},
		{"x-api-key": _key, "X-Api-Key": _key}, {"x-api-key": _key, "authorization": [scheme, scheme]},
		{"x-api-key": _key, "authorization": sprintf("%sx", [scheme])}, {"x-api-key": _key, "authorization": "Bearer x, ApiKey y"},
		{"authorization": sprintf("Bearer x,%s", [scheme])}, {"Authorization": scheme, "authorization": scheme},
	] {
		answer := _presenting(headers)
		answer.reason == "bad_key"
		not answer.key_id
	}
}

test_what_has_not_the_shape_of_a_key_is_none if {
	every text in [
		"", _id, _record.hash, concat("", [_key, "0"]), substring(_key, 0, 66), sprintf(" %s", [_key]), upper(_key), lower(_key),
		replace(_key, "sk_", "pk_"), concat("", [substring(_key, 0, 66), "\n"]), concat("", ["é", substring(_key, 1, -1)]),
		concat("", [substring(_key, 0, 59), "00000000"]),
	] {
		answer := _presenting({"x-api-key": text})
		answer.reason == "bad_key"
		not answer.unknown_key_id
	}
}

test_an_id_without_its_key_is_told_as_unknown if {
	every id in [_id, "Nobody000001"] {
		made_up := _with_check(sprintf("sk_%s.%s", [id, "A83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA"]))
		answer := _presenting({"x-api-key": made_up})
		answer.reason == "bad_key"
		answer.unknown_key_id == id
		not answer.key_id
	}
}

test_times if {
	_recorded({"not_before": _now}) == "allowed"
	_recorded({"not_before": _now + 1}) == "bad_key"
	_recorded({"not_after": _now + 1}) == "allowed"
	_recorded({"not_after": _now}) == "expired_key"
	_recorded({"not_before": "0"}) == "bad_key"
	_recorded({"not_after": null}) == "expired_key"
}

test_withdrawn_keys if {
	_recorded({"suspended": true}) == "revoked_key"
	_recorded({"suspended": false}) == "allowed"
	every since in [0, _now + 1000, null, false] {
		answer := _answer(_asking({"name": "partner"}), _record, {_id: since}, {"x-api-key": _key})
		answer.reason == "revoked_key"
		answer.status == 401
		answer.key_id == _id
	}
}

test_audience_and_binding if {
	every audience in [[], ["spiffe://example.org/ns/shop/sa/other"], null, _server] {
		_recorded({"audience": audience}) == "bad_key"
	}
	_recorded({"workload": _client}) == "allowed"
	every workload in ["spiffe://example.org/ns/web/sa/other", "", null] {
		_recorded({"workload": workload}) == "bad_key"
	}
}

test_a_row_asks_for_a_name_or_for_scopes if {
	_asked({"name": "partner"}) == "allowed"
	_asked({"name": "guest"}) == "bad_key"
	_asked({"scopes": ["read", "write"]}) == "allowed"
	_asked({"scopes": ["read", "delete"]}) == "bad_key"
	_answer(object.union(_asking({}), {"scopes": ["read"]}), _record, {}, {"x-api-key": _key}).allowed
	_answer(object.union(_asking({}), {"scopes": ["delete"]}), _record, {}, {"x-api-key": _key}).reason == "missing_scope"
}

test_no_key_is_named_where_no_row_asks_for_one if {
	answer := _answer(object.remove(_asking({}), ["principal"]), _record, {}, {"x-api-key": _key})
	answer.allowed
	not answer.key_id
}

test_a_kind_of_principal_that_is_not_known_is_missed_by_an_allow_and_met_by_a_deny if {
	_asked({"kind": "device"}) == "bad_token"
	denying := object.union(_asking({"kind": "device"}), {"effect": "Deny"})
	_answer(denying, _record, {}, {"x-api-key": _key}).reason == "denied_by_rule"
}
