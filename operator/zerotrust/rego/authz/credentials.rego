# METADATA
# description: |
#   What is presented beside the connection's identity. Nothing here is evaluated unless a row asks for it.
package zerotrust.authz.credentials

import data.zerotrust.authz.headers
import data.zerotrust.authz.keys
import data.zerotrust.authz.request
import data.zerotrust.authz.tokens

# What a row that asks for a credential does not get; undefined where it is presented. A kind that is not known here is missed
# by an Allow and met by a Deny.
lacking(principal, effect) := "bad_token" if {
	principal.kind == "user"
	not _is_user(principal)
} else := keys.refusal if {
	principal.kind == "key"
	keys.refusal
} else := "bad_key" if {
	principal.kind == "key"
	not keys.is_asked(principal)
} else := "bad_token" if {
	not principal.kind in {"user", "key"}
	effect == "Allow"
}

# The scopes of the credential that a row asks for, and of no other.
scopes(principal) := _token.scopes if principal.kind == "user"

scopes(principal) := keys.scopes if principal.kind == "key"

# Whether the token is of this provider, for one of these audiences, and each claim has one of its values.
_is_user(principal) if {
	_token.provider == principal.provider
	count({one | some one in _token.audiences} & {one | some one in principal.audiences}) > 0
	missing := [name | some name, values in principal.claims; not _claims(name, values)]
	count(missing) == 0
}

_claims(name, values) if {
	some value in _token.claims[name]
	value in values
}

# Which key the token lacks here, if that is what is wrong with it. Anybody can write a key ID: a short one is told, no other.
unknown_key := key if {
	key := tokens.unknown_key(_bearer, request.server.trust_domain)
	regex.match(`\A[!-~]{1,64}\z`, key.kid)
}

_token := tokens.verified(_bearer, _access_tokens, request.server.trust_domain, time.now_ns())

# As oauth2-proxy sends it beside an ID token; some proxies write an empty one where there is none.
_access_tokens := [value | some value in headers.values("x-forwarded-access-token"); value != ""]

# RFC 6750 section 2.1; a header that came twice was joined with a comma, which no token has.
_bearer := regex.find_all_string_submatch_n(`\A(?i:bearer) +([A-Za-z0-9._~+/=-]+)\z`, _authorizations[0], 1)[0][1] if {
	count(_authorizations) == 1
}

_authorizations := headers.values("authorization")
