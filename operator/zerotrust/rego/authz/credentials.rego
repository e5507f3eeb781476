# METADATA
# description: |
#   What is presented beside the connection's identity. Nothing here is evaluated unless a row asks for it.
package zerotrust.authz.credentials

import data.zerotrust.authz.request
import data.zerotrust.authz.tokens

# Whether the token is of this provider, for one of these audiences, and each claim has one of its values.
is_user(principal) if {
	_token.provider == principal.provider
	count({one | some one in _token.audiences} & {one | some one in principal.audiences}) > 0
	missing := [name | some name, values in principal.claims; not _claims(name, values)]
	count(missing) == 0
}

_claims(name, values) if {
	some value in _token.claims[name]
	value in values
}

default token_scopes := set()

token_scopes := {scope | some scope in _token.scopes}

# Issue 6 replaces these two: until then no API key is known, so a row that asks for one never matches.
is_key(principal) if principal.name in _keys

key_scopes := set()

_keys := set()

# Which key the token lacks here, if that is what is wrong with it. Anybody can write a key ID: a short one is told, no other.
unknown_key := key if {
	key := tokens.unknown_key(_bearer, request.server.trust_domain)
	regex.match(`\A[!-~]{1,64}\z`, key.kid)
}

_token := tokens.verified(_bearer, request.server.trust_domain, time.now_ns())

# RFC 6750 section 2.1; a header that came twice was joined with a comma, which no token has.
_bearer := regex.find_all_string_submatch_n(`\A(?i:bearer) +([A-Za-z0-9._~+/=-]+)\z`, _authorizations[0], 1)[0][1] if {
	count(_authorizations) == 1
}

_authorizations := [value | some name, value in request.asked.headers; lower(name) == "authorization"]
