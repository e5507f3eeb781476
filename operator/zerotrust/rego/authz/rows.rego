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
verdict := _verdict([row | some row in _about; not row.observe])

# What they would decide if all of them counted.
candidate := _verdict(_about) if {
	some row in _about
	row.observe
}

# The kinds of credentials that they ask for.
asked contains row.principal.kind if some row in _about

_about := array.concat(object.get(request.server.grants, identity.client, []), _of_any_workload)

default _of_any_workload := []

_of_any_workload := rows if {
	rows := request.server.grants["*"]
	request.server.trust_domain == spiffe.trust_domain(identity.client)
}

_verdict(rows) := {"allowed": false, "reason": "denied_by_rule", "policy": row.policy, "rule": row.rule} if {
	row := _matching(rows, "Deny")[0]
} else := {"allowed": true, "reason": "allowed", "policy": row.policy, "rule": row.rule} if {
	row := _matching(rows, "Allow")[0]
} else := {"allowed": false, "reason": _nearest(rows), "policy": "", "rule": ""}

_matching(rows, effect) := [row |
	some row in rows
	row.effect == effect
	conditions.outcome(row) == "match"
]

# What is missing last is told: a caller who fixes that one thing gets through.
_nearest(rows) := nearest[0] if {
	missing := {conditions.outcome(row) | some row in rows; row.effect == "Allow"}
	nearest := [reason |
		some reason in ["outside_hours", "missing_scope", "mtls_required", "bad_key", "expired_key", "revoked_key", "bad_token"]
		reason in missing
	]
} else := "no_grant"
