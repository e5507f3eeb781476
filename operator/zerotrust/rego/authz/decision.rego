# METADATA
# description: What decision points ask. Whatever the input is, there is an answer, and only `allowed == true` allows.
package zerotrust.authz

import data.zerotrust.authz.keys
import data.zerotrust.authz.request
import data.zerotrust.authz.verdict

# Every other reason is a 403.
_statuses := {
	"allowed": 200,
	"bad_key": 401,
	"bad_token": 401,
	"expired_key": 401,
	"malformed_request": 400,
	"no_identity": 401,
	"revoked_key": 401,
	"stale_bundle": 503,
}

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
	given,
	{
		"status": object.get(_statuses, given.reason, 403),
		"headers": {"x-zerotrust-reason": given.reason | not given.allowed},
		"server": request.named_server,
		"client": verdict.named_client,
		"revision": _revision,
	},
	verdict.reports,
]) if {
	given := verdict.given
}

# METADATA
# title: Envoy
# description: The same answer in the words of opa-envoy-plugin. Where it allows, no API key goes on to the application.
# entrypoint: true
default envoy := {"allowed": false, "http_status": 403, "headers": {}}

envoy := {
	"allowed": decision.allowed,
	"http_status": decision.status,
	"headers": decision.headers,
	"request_headers_to_remove": keys.carriers,
	"dynamic_metadata": object.remove(decision, ["headers", "status"]),
}

default _revision := ""

_revision := revision if {
	revision := data.zerotrust_data.policy.meta.revision
	is_string(revision)
}
