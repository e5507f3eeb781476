# METADATA
# description: |
#   The rows about the caller, by name and as any workload of the trust domain, and what they decide. A Deny overrides every
#   Allow.
package zerotrust.authz.rows

import data.zerotrust.authz.conditions
import data.zerotrust.authz.identity
import data.zerotrust.authz.request
import data.zerotrust.authz.spiffe

# What the rows decide; those of policies in mode Observe do not count.
verdict := _verdict([one | some one in _judged; not one.row.observe])

# What they would decide if all of them counted.
candidate := _verdict(_judged) if {
	some row in _about
	row.observe
}

# Whether one of them asks for an API key.
asks_for_key if {
	some row in _about
	row.principal.kind == "key"
}

_about := array.concat(_of(identity.client), _of_any_workload)

_of(client) := object.get(request.server, ["grants", client], [])

default _of_any_workload := []

_of_any_workload := _of("*") if request.server.trust_domain == spiffe.trust_domain(identity.client)

_judged := [{"row": row, "outcome": conditions.outcome(row)} | some row in _about]

_verdict(judged) := _by(denying[0], false, "denied_by_rule") if {
	denying := _matching("Deny", judged)
	count(denying) > 0
} else := _by(allowing[0], true, "allowed") if {
	allowing := _matching("Allow", judged)
	count(allowing) > 0
} else := {"allowed": false, "reason": _nearest(judged), "policy": "", "rule": ""}

_by(row, allowed, reason) := {"allowed": allowed, "reason": reason, "policy": row.policy, "rule": row.rule}

_matching(effect, judged) := [one.row |
	some one in judged
	one.outcome == "match"
	one.row.effect == effect
]

# What is missing last is told: a caller who fixes that one thing gets through.
_nearest(judged) := nearest[0] if {
	missing := {one.outcome | some one in judged; one.row.effect == "Allow"}
	nearest := [reason |
		some reason in ["outside_hours", "missing_scope", "mtls_required", "bad_key", "expired_key", "revoked_key", "bad_token"]
		reason in missing
	]
	count(nearest) > 0
} else := "no_grant"
