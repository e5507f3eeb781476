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

# What would have been decided for a server in Observe.
observed := _judged if _asked_about_observing

# What would be decided if the rows in mode Observe decided as well, where that differs.
candidate := rows.candidate if {
	_usable
	not _earlier
	_differs(rows.candidate, rows.verdict)
}

# The key ID that a token names and the bundle lacks: the identity provider may have a new one.
unknown_key := credentials.unknown_key if "bad_token" in _told

# The API key that was presented where a row asks for one: decision logs tell when a key was used last, also in vain.
key_id := keys.known_id if _read_for_key

# An API key's ID without what proves it: anybody can write one.
unknown_key_id := keys.unknown_id if _read_for_key

_read_for_key if {
	_usable
	not _earlier
	rows.asks_for_key
}

_told contains given.reason

_told contains observed.reason

_told contains candidate.reason

default named_client := ""

named_client := identity.client

_differs(one, other) if one.allowed != other.allowed

_differs(one, other) if one.reason != other.reason

_usable if {
	freshness.policy
	request.valid
}

_observing if request.server.enforcement == "Observe"

_asked_about_observing if {
	_usable
	_observing
}

_judged := _denied(_earlier) if {
	_earlier
} else := rows.verdict

# What is told before any row is read.
_earlier := "stale_bundle" if {
	not freshness.revocations
} else := "malformed_request" if {
	not request.readable
} else := "no_identity" if {
	not identity.client
} else := "revoked_identity" if {
	revocation.revoked
}

_denied(reason) := {"allowed": false, "reason": reason, "policy": "", "rule": ""}
