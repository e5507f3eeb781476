# METADATA
# description: What is decided, in the order of ADR 0009, and what is told beside it.
package zerotrust.authz.verdict

import data.zerotrust.authz.credentials
import data.zerotrust.authz.freshness
import data.zerotrust.authz.identity
import data.zerotrust.authz.keys
import data.zerotrust.authz.request
import data.zerotrust.authz.revocation
import data.zerotrust.authz.rows

# What holds for every server, in Observe too: an old bundle must not speak for them, nor a decision point that asks nonsense.
given := _denied("stale_bundle") if {
	not freshness.policy
} else := _denied("malformed_request") if {
	not request.valid
} else := object.union(_judged, {"allowed": true, "reason": "allowed"}) if {
	_observing
} else := _judged

# What is told beside it, where there is something to tell. First, what would have been decided for a server in Observe.
reports["observed"] := _judged if {
	_observing
	_usable
}

# What would be decided if the rows in mode Observe decided as well, where that differs.
reports["candidate"] := candidate if {
	candidate := rows.candidate
	_read
	_differs(candidate, rows.verdict)
}

# The key ID that a token names and the bundle lacks: the identity provider may have a new one.
reports["unknown_key"] := credentials.unknown_key if {
	"user" in rows.asked
	_read
	_lacks_token
}

# The ID of an API key, where a row asks for one: logs tell when it was used last, also in vain.
reports[name] := id if {
	"key" in rows.asked
	_read
	some name, id in keys.named
}

_lacks_token if rows.verdict.reason == "bad_token"

_lacks_token if rows.candidate.reason == "bad_token"

default named_client := ""

named_client := identity.client

_differs(one, other) if one.allowed != other.allowed

_differs(one, other) if one.reason != other.reason

_usable if {
	freshness.policy
	request.valid
}

# Whether the rows were read at all.
_read if {
	_usable
	not _judged.reason in _told_before
}

_observing if request.server.enforcement == "Observe"

_told_before := {"stale_bundle", "malformed_request", "no_identity", "revoked_identity"}

_judged := _denied("stale_bundle") if {
	not freshness.revocations
} else := _denied("malformed_request") if {
	not request.segments
} else := _denied("no_identity") if {
	not identity.client
} else := _denied("revoked_identity") if {
	revocation.revoked
} else := rows.verdict

_denied(reason) := {"allowed": false, "reason": reason, "policy": "", "rule": ""}
