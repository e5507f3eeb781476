# METADATA
# title: Tokens of identity providers
# description: |
#   Verifies signed JWTs (RFC 7519, RFC 8725, OpenID Connect Core 3.1.3.7) with the keys in the bundle, exactly as
#   providers/tokens.py does. Whatever is wrong with a token, `verified` is undefined.
#
#   Nothing of the token reaches a built-in that can fail on it: `io.jwt.decode` ends the process for a `cty` that is no
#   text, and `io.jwt.decode_verify` does so for an `iss` that is none, so the parts are decoded here, and the built-in
#   gets only tokens whose shape is known, the one key that is meant, and neither issuer nor clock of its own.
package zerotrust.authz.tokens

_max_characters := 16384

# Arrays and objects in one part, counted by their brackets: other readers stop at some depth, and all must agree.
_max_brackets := 512

_max_audiences := 64

# 31 days: a token that is good for decades cannot be taken back.
_max_lifetime := 2678400

_second := 1000000000

# Other types are made for other purposes (RFC 8725 section 3.11): dpop+jwt, logout+jwt, secevent+jwt.
_types := {"JWT", "jwt", "at+jwt", "application/at+jwt"}

# A nested token, extensions that must be understood, an unencoded payload, an encrypted token.
_refused_parameters := {"cty", "crit", "b64", "enc"}

# Bound to a key that the decision point cannot see the proof of (RFC 7800), or an event, such as a logout (RFC 8417).
_refused_claims := {"cnf", "events"}

# Access tokens (RFC 9068 section 2.1), which have no `at_hash`.
_access_types := {"at+jwt", "application/at+jwt"}

# Those whose `at_hash` is made with SHA-256; there are no other digests here (OpenID Connect Core 3.1.3.6).
_digested := {"ES256", "PS256", "RS256"}

# Only ID tokens have these (OpenID Connect Core 2 and 3.3.2.11).
_id_token_claims := {"nonce", "at_hash", "c_hash", "s_hash"}

# What makes a key; nothing else of it is handed on.
_key_members := {"kty", "crv", "x", "y", "n", "e"}

# Each algorithm's key (RFC 7518 section 3.1, RFC 8037 section 3.1); there is no entry for `none` and for shared secrets.
_keys := {
	"ES256": {"kty": "EC", "crv": "P-256"},
	"ES384": {"kty": "EC", "crv": "P-384"},
	"ES512": {"kty": "EC", "crv": "P-521"},
	"EdDSA": {"kty": "OKP", "crv": "Ed25519"},
	"PS256": {"kty": "RSA"},
	"PS384": {"kty": "RSA"},
	"PS512": {"kty": "RSA"},
	"RS256": {"kty": "RSA"},
	"RS384": {"kty": "RSA"},
	"RS512": {"kty": "RSA"},
}

# METADATA
# title: What a good token says
# description: |
#   `{provider, audiences, claims, scopes}`: claims are lists of texts, scopes and audiences are sorted. Undefined for
#   every other token, at any time (`now_ns`, nanoseconds since 1970), and for every unknown trust domain. `beside` are the
#   access tokens that ride along: none or one, and an ID token must speak for it.
verified(raw, beside, trust_domain, now_ns) := {
	"provider": name,
	"audiences": sort(_audiences(token.claims)),
	"claims": {claim: values | some claim, value in token.claims; values := _texts(value)},
	"scopes": sort(_scopes(token.claims)),
} if {
	token := _parsed(raw)
	name := _issuer_of(token, trust_domain)
	provider := data.zerotrust_data.policy.providers[trust_domain][name]
	now_ns < provider.not_after * _second
	_header_is_good(token.header, provider)
	key := _known_key(token.header, provider)
	_key_is_good(key, token.header.alg)
	_in_time(token.claims, provider.leeway, now_ns)
	_claims_are_good(token.claims)
	_speaks_for(token, beside)
	_is_authentic(raw, token, key)
}

# METADATA
# title: A key that the bundle does not have
# description: |
#   `{provider, kid}` of a token that names an identity provider of the trust domain and none of its keys: the provider
#   may have new ones. Anybody can write such a token, so this is a hint and nothing else.
unknown_key(raw, trust_domain) := {"provider": name, "kid": kid} if {
	token := _parsed(raw)
	name := _issuer_of(token, trust_domain)
	provider := data.zerotrust_data.policy.providers[trust_domain][name]
	_header_is_good(token.header, provider)
	kid := token.header.kid
	every key in json.unmarshal(provider.jwks).keys {
		key.kid != kid
	}
}

_parsed(raw) := {"header": header, "claims": claims} if {
	is_string(raw)
	count(raw) <= _max_characters
	segments := split(raw, ".")
	count(segments) == 3
	every segment in segments {
		base64url.encode_no_pad(base64url.decode(segment)) == segment
	}
	header := _object_in(base64url.decode(segments[0]))
	claims := _object_in(base64url.decode(segments[1]))
}

# The JSON object that a text is. When no text hides quotes as \u0022, an object that was read has as many quotes as its
# text, unless a member that stood twice was lost. U+FFFD is what a reader writes for what is not Unicode.
_object_in(text) := read if {
	strings.count(text, "{") + strings.count(text, "[") <= _max_brackets
	not contains(text, `\u0022`)
	read := json.unmarshal(text)
	is_object(read)
	written := json.marshal(read)
	strings.count(text, `"`) == strings.count(written, `"`)
	not contains(written, "\ufffd")
}

# Two providers of one issuer would leave open which of them vouches: then neither does.
_issuer_of(token, trust_domain) := names[0] if {
	is_string(token.claims.iss)
	names := [name |
		some name, provider in data.zerotrust_data.policy.providers[trust_domain]
		provider.issuer == token.claims.iss
	]
	count(names) == 1
}

_header_is_good(header, provider) if {
	header.alg in provider.algorithms
	_keys[header.alg]
	is_string(header.kid)
	header.kid != ""
	object.get(header, "typ", "JWT") in _types
	count(object.keys(header) & _refused_parameters) == 0
}

_known_key(header, provider) := found[0] if {
	found := [key |
		some key in json.unmarshal(provider.jwks).keys
		key.kid == header.kid
	]
	count(found) == 1
}

_key_is_good(key, algorithm) if {
	object.subset(key, _keys[algorithm])
	object.get(key, "alg", algorithm) == algorithm
	object.get(key, "use", "sig") == "sig"
	"verify" in object.get(key, "key_ops", ["verify"])
	_is_strong(key)
}

# 2048 to 8192 bits in base64url: less is broken, more only costs time.
_is_strong(key) if {
	key.kty == "RSA"
	count(key.n) >= 342
	count(key.n) <= 1366
}

_is_strong(key) if key.kty != "RSA"

_in_time(claims, leeway, now_ns) if {
	expiry := _seconds(json.marshal(claims.exp))
	expiry * _second > now_ns - (leeway * _second)
	beginnings := _starts(claims)
	every start in beginnings {
		start * _second <= now_ns + (leeway * _second)
	}
	expiry > max(beginnings) + 1
	expiry - beginnings[0] <= _max_lifetime
}

# When it was issued, and, if it says so, from when on it holds.
_starts(claims) := [_seconds(json.marshal(claims.iat)), _seconds(json.marshal(claims.nbf))]

_starts(claims) := [_seconds(json.marshal(claims.iat))] if not "nbf" in object.keys(claims)

# Whole seconds since 1970, at most 12 digits. It takes the number's text, because exponents are refused: a number can be
# too large to be read, and as a number 1e9 is the argument that 1000000000 was.
_seconds(written) := to_number(split(written, ".")[0]) if regex.match(`^[0-9]{1,12}(\.[0-9]{1,9})?$`, written)

_claims_are_good(claims) if {
	count(object.keys(claims) & _refused_claims) == 0
	subject := object.get(claims, "sub", "absent")
	regex.match(`^[ -~]+$`, subject)
	count(subject) <= 255
	is_string(object.get(claims, "at_hash", ""))
	is_string(object.get(claims, "azp", ""))
	count(_audiences(claims)) > 0
}

_speaks_for(_, beside) if count(beside) == 0

_speaks_for(token, _) if _is_access_token(token.header)

# The left half of the digest (OpenID Connect Core 3.1.3.6).
_speaks_for(token, beside) if {
	[access] := beside
	not _is_access_token(token.header)
	token.header.alg in _digested
	count(access) <= _max_characters
	regex.match(`^[!-~]+$`, access)
	token.claims.at_hash == base64url.encode_no_pad(hex.decode(substring(crypto.sha256(access), 0, 32)))
}

_is_access_token(header) if header.typ in _access_types

# `aud` as a list of one or more texts (RFC 7519 section 4.1.3).
_named_audiences(claims) := [claims.aud] if {
	is_string(claims.aud)
	claims.aud != ""
}

_named_audiences(claims) := claims.aud if {
	is_array(claims.aud)
	count(claims.aud) > 0
	count(claims.aud) <= _max_audiences
	every audience in claims.aud {
		is_string(audience)
		audience != ""
	}
}

# An ID token is for its authorised party alone; one for several audiences must say which (OpenID Connect Core 3.1.3.7).
_audiences(claims) := {audience | some audience in _named_audiences(claims)} if not _is_id_token(claims)

_audiences(claims) := {claims.azp} if {
	_is_id_token(claims)
	claims.azp in _named_audiences(claims)
}

_audiences(claims) := {audience} if {
	_is_id_token(claims)
	not "azp" in object.keys(claims)
	[audience] = _named_audiences(claims)
}

_is_id_token(claims) if count(object.keys(claims) & _id_token_claims) > 0

# RFC 8693 section 4.2 writes one text with spaces, others a list, or `scp`.
_scopes(claims) := {scope |
	some name in ["scope", "scp"]
	some text in _texts(claims[name])
	some scope in split(text, " ")
	scope != ""
}

# What a policy can ask for: texts and booleans, and lists with some; numbers and objects are left out.
_texts(value) := [_text_of(value)]

_texts(value) := [_text_of(one) | some one in value] if is_array(value)

_text_of(value) := value if is_string(value)

_text_of(value) := json.marshal(value) if is_boolean(value)

# The times were judged before, without their fractions. The moment that is passed is one at which every token holds: the
# built-in counts in floating point, and knows no leeway.
_is_authentic(raw, token, key) if {
	[true, _, _] = io.jwt.decode_verify(raw, {
		"alg": token.header.alg,
		"aud": _named_audiences(token.claims)[0],
		"cert": json.marshal(object.filter(key, _key_members)),
		"time": (max(_starts(token.claims)) + 1) * _second,
	})
}
