package zerotrust.authz_test

import data.zerotrust.authz
import data.zerotrust.authz.tokens

# 2026-11-22T12:00:00Z, a Sunday. `data.fixtures` is written by hack/rego.py.
_now := 1795348800000000000

_server := "spiffe://example.org/ns/shop/sa/orders"

_client := "spiffe://example.org/ns/web/sa/frontend"

_meta := {"schema": 1, "serial": 1, "revision": "r", "issued_at": 0, "not_after": 100000000000, "namespace": "shop"}

_row := {"policy": "p", "rule": "r", "effect": "Allow", "port": 8443, "protocol": "TCP"}

_serving(rows) := {
	"meta": _meta,
	"authorities": {"example.org": [data.fixtures.authority]},
	"providers": {"example.org": {"corp": data.fixtures.provider}},
	"servers": {_server: {
		"name": "orders",
		"trust_domain": "example.org",
		"enforcement": "Enforce",
		"on_stale_revocations": "Deny",
		"grants": {_client: rows},
	}},
}

_request := {
	"server": _server,
	"source": {"principal": _client, "mtls": true},
	"request": {"method": "GET", "path": "/a/b", "port": 8443, "headers": {}},
}

_envoy := {"attributes": {
	"source": {"principal": _client},
	"destination": {"principal": _server, "address": {"socketAddress": {"portValue": 8443}}},
	"request": {"http": {"method": "GET", "path": "/a/b", "headers": {}}},
}}

_decided(policy, revocations, asked) := answer if {
	answer := authz.decision with input as asked
		with time.now_ns as _now
		with data.zerotrust_data.policy as policy
		with data.zerotrust_data.revocations as revocations
}

_reason(rows, asked) := _decided(_serving(rows), {"meta": _meta, "identities": {}}, asked).reason

_with(changes) := object.union(_request, changes)

_about(changes) := [object.union(_row, changes)]

test_no_data_is_stale if _decided({}, {}, _request).reason == "stale_bundle"

test_no_revocations_are_stale if {
	answer := _decided(_serving([_row]), {}, _request)
	answer.reason == "stale_bundle"
	answer.status == 503
}

test_stale_revocations_may_be_accepted if {
	accepting := {"servers": {_server: {"on_stale_revocations": "Allow"}}}
	_decided(object.union(_serving([_row]), accepting), {}, _request).allowed
}

test_nonsense_is_malformed if {
	every asked in [7, {}, {"attributes": 7}, {"attributes": false}, _with({"request": {"port": "8443"}})] {
		_reason([_row], asked) == "malformed_request"
	}
}

test_a_row_allows if {
	_reason([_row], _request) == "allowed"
	_reason([_row], _envoy) == "allowed"
}

test_any_workload if {
	policy := json.patch(_serving([]), [{
		"op": "add",
		"path": ["servers", _server, "grants", "*"],
		"value": [_row],
	}])
	_decided(policy, {"meta": _meta}, _request).allowed
}

test_a_deny_overrides if {
	answer := _decided(_serving([_row, object.union(_row, {"effect": "Deny"})]), {"meta": _meta}, _request)
	answer.reason == "denied_by_rule"
	answer.status == 403
	answer.headers == {"x-zerotrust-reason": "denied_by_rule"}
}

test_a_candidate_is_reported if {
	rows := [_row, object.union(_row, {"effect": "Deny", "observe": true})]
	answer := _decided(_serving(rows), {"meta": _meta}, _request)
	answer.allowed
	answer.candidate.reason == "denied_by_rule"
}

test_a_candidate_that_changes_only_the_reason_is_reported if {
	rows := _about({"observe": true, "require_mtls": true})
	answer := _decided(_serving(rows), {"meta": _meta}, _with({"source": {"mtls": false}}))
	answer.reason == "no_grant"
	answer.candidate.reason == "mtls_required"
}

test_an_observed_server_is_allowed if {
	policy := object.union(_serving([]), {"servers": {_server: {"enforcement": "Observe"}}})
	answer := _decided(policy, {"meta": _meta}, _request)
	answer.allowed
	answer.observed.reason == "no_grant"
}

test_nobody_is_nobody if _reason([_row], _with({"source": {"principal": ""}})) == "no_identity"

test_ports if _reason(_about({"port": 1}), _request) == "no_grant"

test_methods if {
	_reason(_about({"methods": ["GET"]}), _request) == "allowed"
	_reason(_about({"methods": ["PUT"]}), _request) == "no_grant"
}

test_paths if {
	every pattern in [["a", "b"], ["a", "*"], ["**"], ["a", "**", "b"], ["**", "a", "b", "**"]] {
		_reason(_about({"paths": [pattern]}), _request) == "allowed"
	}
	every pattern in [["a"], ["*"], ["a", "*", "b"], ["**", "a"], []] {
		_reason(_about({"paths": [pattern]}), _request) == "no_grant"
	}
}

test_ambiguous_paths if {
	every path in ["", "a", "//", "/a/../b", "/%2e", "/a%2Fb", "/a;b", "/%", "/%ff", "/a\\b"] {
		_reason([_row], _with({"request": {"path": path}})) == "malformed_request"
	}
}

test_ends if {
	_reason(_about({"until": 1795348801}), _request) == "allowed"
	_reason(_about({"until": 1795348800}), _request) == "no_grant"
}

test_windows if {
	open := {"days": [6], "start": 720, "end": 721, "time_zone": "UTC"}
	_reason(_about({"window": open}), _request) == "allowed"
	every changes in [{"days": [5]}, {"start": 721, "end": 722}, {"start": 719, "end": 720}, {"time_zone": "Nowhere"}] {
		_reason(_about({"window": object.union(open, changes)}), _request) == "outside_hours"
	}
}

test_windows_across_midnight if {
	night := {"days": [5], "start": 1320, "end": 721, "time_zone": "UTC"}
	_reason(_about({"window": night}), _request) == "allowed"
	_reason(_about({"window": object.union(night, {"days": [6], "start": 722})}), _request) == "outside_hours"
	_reason(_about({"window": object.union(night, {"days": [6], "start": 720, "end": 0})}), _request) == "allowed"
}

test_a_deny_sleeps_outside_its_window if {
	closed := {"days": [0], "start": 0, "end": 1440, "time_zone": "UTC"}
	_reason([_row, object.union(_row, {"effect": "Deny", "window": closed})], _request) == "allowed"
}

test_mtls if {
	_reason(_about({"require_mtls": true}), _request) == "allowed"
	_reason(_about({"require_mtls": true}), _envoy) == "allowed"
	_reason(_about({"require_mtls": true}), _with({"source": {"mtls": false}})) == "mtls_required"
}

_user := {"kind": "user", "provider": "corp", "audiences": ["orders"], "claims": {"groups": ["sre"]}}

_bearing(token) := _with({"request": {"headers": {"Authorization": sprintf("Bearer %s", [token])}}})

test_users if {
	every token in data.fixtures.tokens {
		_reason(_about({"principal": _user, "scopes": ["orders:read"]}), _bearing(token)) == "allowed"
	}
	_reason(_about({"principal": _user}), _request) == "bad_token"
	_reason(_about({"principal": _user, "scopes": ["orders:delete"]}), _bearing(data.fixtures.tokens.plain)) == "missing_scope"
	every changes in [{"provider": "other"}, {"audiences": ["x"]}, {"claims": {"groups": ["x"]}}, {"claims": {"x": ["x"]}}] {
		_reason(_about({"principal": object.union(_user, changes)}), _bearing(data.fixtures.tokens.plain)) == "bad_token"
	}
}

test_an_access_token_beside_a_token_that_does_not_speak_for_it if {
	bearing := _bearing(data.fixtures.tokens.plain)
	beside := {"": "allowed", "a.b.c": "bad_token"}
	every access, reason in beside {
		asked := object.union(bearing, {"request": {"headers": {"X-Forwarded-Access-Token": access}}})
		_reason(_about({"principal": _user}), asked) == reason
	}
}

test_an_unknown_key_is_told if {
	found := tokens.unknown_key(data.fixtures.unknown_key, "example.org") with data.zerotrust_data.policy as _serving([])
	found == {"provider": "corp", "kid": "unknown"}
}

_unsigned(kid) := sprintf("%s.%s.", [
	base64url.encode_no_pad(json.marshal({"alg": "ES256", "kid": kid})),
	base64url.encode_no_pad(json.marshal({"iss": data.fixtures.provider.issuer})),
])

_hint(serving, token) := _decided(serving, {"meta": _meta}, _bearing(token)).unknown_key

test_the_answer_names_an_unknown_key if {
	asking := _serving(_about({"principal": _user}))
	_hint(asking, data.fixtures.unknown_key) == {"provider": "corp", "kid": "unknown"}
	_hint(asking, _unsigned("k!~")).kid == "k!~"
	every kid in ["", "a b", "a\n", "é", sprintf("%065d", [1]), 7] {
		not _hint(asking, _unsigned(kid))
	}
}

test_the_answer_names_it_where_an_observed_server_or_a_candidate_lacks_it if {
	watched := object.union(_serving(_about({"principal": _user})), {"servers": {_server: {"enforcement": "Observe"}}})
	_hint(watched, data.fixtures.unknown_key).kid == "unknown"
	_hint(_serving(_about({"principal": _user, "observe": true})), data.fixtures.unknown_key).kid == "unknown"
}

test_no_key_is_named_where_no_row_asks_for_a_user if {
	not _hint(_serving([_row]), data.fixtures.unknown_key)
	not _hint(_serving([]), data.fixtures.unknown_key)
	not _hint(_serving(_about({"principal": _user})), data.fixtures.tokens.plain)
}

_showing(certificate) := _with({"source": {"principal": "", "certificate": certificate}})

test_a_certificate_identifies if {
	answer := _decided(_serving([_row]), {"meta": _meta}, _showing(data.fixtures.certificate))
	answer.allowed
	answer.client == _client
	_reason([_row], _showing(urlquery.encode(data.fixtures.certificate))) == "no_identity"
	_reason([_row], _showing(data.fixtures.escaped)) == "allowed"
	_reason([_row], _showing(data.fixtures.foreign)) == "no_identity"
	_reason([_row], _with({"source": {"certificate": data.fixtures.other}})) == "no_identity"
}

_revoked(asked, before) := _decided(_serving([_row]), {"meta": _meta, "identities": {_client: before}}, asked).reason

test_revoked_identities if {
	shown := _with({"source": {"certificate": data.fixtures.certificate}})
	_revoked(shown, data.fixtures.not_before) == "allowed"
	_revoked(shown, data.fixtures.not_before + 1) == "revoked_identity"
	_revoked(_request, 0) == "revoked_identity"
}

test_envoys_header if {
	forwarded := sprintf(`By=a;Cert="%s";URI=%s`, [data.fixtures.escaped, _client])
	headers := {"attributes": {"request": {"http": {"headers": {"x-forwarded-client-cert": forwarded}}}}}
	_revoked(object.union(_envoy, headers), 0) == "allowed"
	_revoked(_envoy, 0) == "revoked_identity"
	source := {"attributes": {"source": {"certificate": data.fixtures.escaped}}}
	_revoked(object.union(_envoy, source), 0) == "allowed"
}

test_envoys_words if {
	answer := authz.envoy with input as _envoy
		with time.now_ns as _now
		with data.zerotrust_data.policy as _serving([])
		with data.zerotrust_data.revocations as {"meta": _meta}
	answer.allowed == false
	answer.http_status == 403
	answer.headers == {"x-zerotrust-reason": "no_grant"}
}

_removed(headers) := answer.request_headers_to_remove if {
	asked := object.union(_envoy, {"attributes": {"request": {"http": {"headers": headers}}}})
	answer := authz.envoy with input as asked
		with time.now_ns as _now
		with data.zerotrust_data.policy as _serving([_row])
		with data.zerotrust_data.revocations as {"meta": _meta}
	answer.allowed
}

test_envoy_takes_whatever_may_be_an_api_key_off_the_request if {
	_removed({"x-api-key": "sk_Partner00001.q83v", "x-other": "kept"}) == ["x-api-key"]
	_removed({"authorization": "ApiKey sk_Partner00001.q83v"}) == ["authorization"]
	_removed({"authorization": "Bearer x, apikey  sk_Partner00001.q83v"}) == ["authorization"]
	_removed({"Authorization": "sk_Partner00001.q", "X-API-Key": "sk_Partner00001."}) == ["authorization", "x-api-key"]
}

test_envoy_lets_other_credentials_pass if {
	every headers in [
		{}, {"authorization": "Bearer x"}, {"authorization": "ApiKey VnVhQ2ZHY0JDZGJrU"}, {"x-api-key": "another"},
		{"x-other": "sk_Partner00001.q83v"}, {"x-api-key": ["sk_Partner00001.q83v"]},
	] {
		_removed(headers) == []
	}
}
