# METADATA
# description: What decision points ask. Whatever the input is, there is an answer, and only `allowed == true` allows.
package zerotrust.authz

import data.zerotrust.authz.request
import data.zerotrust.authz.verdict

_unauthenticated := {"no_identity", "bad_token", "bad_key", "expired_key", "revoked_key"}

# METADATA
# title: Decision
# description: The answer about one request; docs/reference/decisions.md describes it.
# entrypoint: true
default decision := {
	"allowed": false,
	"reason": "malformed_request",
	"policy": "",
	"rule": "",
	"status": 400,
	"headers": {"x-zerotrust-reason": "malformed_request"},
	"server": "",
	"client": "",
	"revision": "",
}

decision := object.union_n([
	_given,
	{
		"status": _status,
		"headers": _headers,
		"server": request.named_server,
		"client": verdict.named_client,
		"revision": _revision,
	},
	{"observed": observed | observed := verdict.observed},
	{"candidate": candidate | candidate := verdict.candidate},
	{"unknown_key": key | key := verdict.unknown_key},
	{"key_id": id | id := verdict.key_id},
	{"unknown_key_id": id | id := verdict.unknown_key_id},
])

# METADATA
# title: Envoy
# description: The same answer in the words of opa-envoy-plugin.
# entrypoint: true
default envoy := {"allowed": false, "http_status": 403, "headers": {}}

envoy := {
	"allowed": decision.allowed,
	"http_status": decision.status,
	"headers": decision.headers,
	"dynamic_metadata": object.remove(decision, ["headers", "status"]),
}

default _given := {"allowed": false, "reason": "malformed_request", "policy": "", "rule": ""}

_given := verdict.given

default _revision := ""

_revision := data.zerotrust.policy.meta.revision if is_string(data.zerotrust.policy.meta.revision)

default _status := 403

_status := 200 if {
	_given.allowed
} else := 401 if {
	_given.reason in _unauthenticated
} else := 400 if {
	_given.reason == "malformed_request"
} else := 503 if {
	_given.reason == "stale_bundle"
}

default _headers := {}

_headers := {"x-zerotrust-reason": _given.reason} if not _given.allowed
