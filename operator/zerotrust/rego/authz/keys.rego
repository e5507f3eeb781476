# METADATA
# title: API keys
# description: |
#   `sk_<id>.<secret><check>` of 12, 43 and 8 characters; the check is the beginning of the SHA-256 over all before it. The
#   bundle has the SHA-256 of whole keys by their IDs. Nothing here but `carriers` is evaluated unless a row asks for a key.
package zerotrust.authz.keys

import data.zerotrust.authz.headers
import data.zerotrust.authz.identity
import data.zerotrust.authz.request

# Why the key that is presented is accepted from nobody, or not here; undefined for a good one.
refusal := "bad_key" if {
	not _record
} else := "bad_key" if {
	not _begun
} else := "expired_key" if {
	not _lasts
} else := "revoked_key" if {
	_withdrawn
} else := "bad_key" if {
	not request.asked.server in _record.audience
} else := "bad_key" if {
	object.get(_record, "workload", identity.client) != identity.client
}

# Whether a key that is not refused is the one that a row asks for: of that name, or, without a name, with all of the scopes.
is_asked(principal) if {
	principal.name != ""
	principal.name == _record.name
}

is_asked(principal) if {
	principal.name == ""
	every scope in principal.scopes {
		scope in scopes
	}
}

scopes := _record.scopes

# The ID of the key that was presented, also when it is refused as expired or revoked; as unknown where nobody has proved to hold
# it, because the bundle does not know it or has another hash.
named := {"key_id": _id} if {
	_record
} else := {"unknown_key_id": _id}

# The headers in which something stands that may be one of our keys, good or not: an application that got it could use it.
carriers := [name | some name in ["authorization", "x-api-key"]; _carries(name)]

_carries(name) if {
	some value in headers.values(name)
	is_string(value)
	regex.match(`sk_[0-9A-Za-z]{12}\.`, value)
}

_record := record if {
	record := data.zerotrust_data.policy.api_keys[_id]
	crypto.hmac.equal(record.hash, concat("", ["sha256:", crypto.sha256(_text)]))
}

_begun if _nanoseconds(_record.not_before) <= time.now_ns()

_lasts if time.now_ns() < _nanoseconds(_record.not_after)

_withdrawn if _record.suspended

# Whatever stands there: that it stands there revokes.
_withdrawn if data.zerotrust_data.revocations.keys[_id] = _

_nanoseconds(seconds) := seconds * 1000000000 if is_number(seconds)

# Of a text that has the shape of a key, and whose check is right. Everything else is refused before it is hashed.
_id := substring(_text, 3, 12) if {
	regex.match(`\Ask_[0-9A-Za-z]{12}\.[0-9A-Za-z_-]{43}[0-9a-f]{8}\z`, _text)
	startswith(crypto.sha256(substring(_text, 0, 59)), substring(_text, 59, 8))
}

# Each of the two headers at most once, and both may only say the same.
_text := text if {
	count(_own) <= 1
	count(_authorization) <= 1
	every value in _authorization {
		is_string(value)
	}
	offered := {one | some one in array.concat(_own, _of_scheme)}
	count(offered) == 1
	some text in offered
}

_own := headers.values("x-api-key")

_authorization := headers.values("authorization")

# What stands behind the scheme; where Envoy has joined it with another credential, all of it, which is no key.
_of_scheme := [text | some value in _authorization; text := _after_scheme(value)]

_after_scheme(value) := trim_left(substring(value, 7, -1), " ") if {
	lower(substring(value, 0, 7)) == "apikey "
} else := value if {
	contains(replace(lower(value), " ", ""), ",apikey")
}
