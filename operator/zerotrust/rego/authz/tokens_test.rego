package zerotrust.authz.tokens_test

import data.zerotrust.authz.tokens

# The example key of RFC 7515 appendix A.3.
public := {
	"kty": "EC",
	"crv": "P-256",
	"x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
	"y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}

private := object.union(public, {"d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"})

now := 1795348800

header := {"alg": "ES256", "kid": "one", "typ": "JWT"}

claims := {
	"iss": "https://login.example.org",
	"sub": "a2b4",
	"aud": "orders",
	"iat": now - 60,
	"exp": now + 300,
	"groups": ["sre", 7],
	"email_verified": true,
	"scope": "orders:read orders:write",
}

signed(parameters, changes) := io.jwt.encode_sign(
	object.union(header, parameters),
	object.union(claims, changes),
	private,
)

published(key) := {"example.org": {"corp": {
	"issuer": "https://login.example.org",
	"algorithms": ["ES256", "RS256"],
	"jwks": json.marshal({"keys": [object.union(public, key)]}),
	"leeway": 60,
	"not_after": now + 3600,
}}}

verdict(raw) := verdict_with(raw, {"kid": "one"}, now)

verdict_with(raw, key, seconds) := verdict_of(raw, "example.org", published(key), seconds)

verdict_of(raw, domain, known, seconds) := answer if {
	answer := tokens.verified(raw, [], domain, seconds * 1000000000) with data.zerotrust_data.policy.providers as known
}

hint(raw) := answer if {
	answer := tokens.unknown_key(raw, "example.org") with data.zerotrust_data.policy.providers as published({"kid": "one"})
}

refused(raw) if not verdict(raw)

test_a_good_token_says_who_for_whom_and_what if {
	verdict(signed({}, {})) == {
		"provider": "corp",
		"audiences": ["orders"],
		"claims": {
			"iss": ["https://login.example.org"],
			"sub": ["a2b4"],
			"aud": ["orders"],
			"email_verified": ["true"],
			"groups": ["sre"],
			"scope": ["orders:read orders:write"],
		},
		"scopes": ["orders:read", "orders:write"],
	}
}

test_several_audiences if verdict(signed({}, {"aud": ["b", "a"]})).audiences == ["a", "b"]

test_an_id_token_is_for_its_party if {
	verdict(signed({}, {"aud": ["a", "b"], "azp": "a", "nonce": "n"})).audiences == ["a"]
	verdict(signed({}, {"nonce": "n"})).audiences == ["orders"]
	refused(signed({}, {"aud": ["a", "b"], "nonce": "n"}))
	refused(signed({}, {"azp": "frontend", "nonce": "n"}))
}

test_scopes_of_both_kinds if {
	verdict(signed({}, {"scope": "a  b", "scp": ["c", "a"]})).scopes == ["a", "b", "c"]
}

test_not_before_within_the_leeway if {
	verdict(signed({}, {"nbf": now + 60}))
	refused(signed({}, {"nbf": now + 61}))
	refused(signed({}, {"nbf": "soon"}))
}

test_expiry_within_the_leeway if {
	raw := signed({}, {})
	verdict_with(raw, {"kid": "one"}, now + 359)
	not verdict_with(raw, {"kid": "one"}, now + 360)
}

test_no_token_outlives_the_keys if {
	not verdict_with(signed({}, {"exp": now + 7200}), {"kid": "one"}, now + 3600)
}

test_headers_that_change_the_meaning_are_refused if {
	every parameters in [{"cty": "JWT"}, {"b64": true}, {"typ": "logout+jwt"}, {"kid": "two"}] {
		refused(signed(parameters, {}))
	}
}

test_claims_that_are_not_good_are_refused if {
	every changes in [
		{"iss": "https://login.example.org/"}, {"aud": []}, {"aud": [7]}, {"aud": ""}, {"exp": now - 60},
		{"exp": 9999999999}, {"iat": now + 61}, {"sub": ""}, {"cnf": {}}, {"events": {}}, {"at_hash": 7}, {"azp": 7},
	] {
		refused(signed({}, changes))
	}
}

test_what_is_no_token_is_refused if {
	every raw in ["", "a", "a.b.c", "..", 7, null, "\u00e9.a.b"] {
		refused(raw)
	}
}

test_a_changed_token_is_refused if {
	segments := split(signed({}, {}), ".")
	refused(concat(".", [segments[0], segments[1], "AAAA"]))
	refused(concat(".", [segments[0], base64url.encode_no_pad(json.marshal(object.union(claims, {"sub": "root"}))), segments[2]]))
}

test_keys_for_something_else_are_refused if {
	raw := signed({}, {})
	every key in [{"use": "enc"}, {"alg": "ES384"}, {"key_ops": ["sign"]}, {"kid": "two"}, {"crv": "P-384"}] {
		not verdict_with(raw, object.union({"kid": "one"}, key), now)
	}
}

# 1024 bits have 171 characters, 2048 have 342; with a modulus of that length only the signature is wrong.
test_rsa_keys_have_enough_bits if {
	forged := concat(".", [
		base64url.encode_no_pad(json.marshal(object.union(header, {"alg": "RS256"}))),
		base64url.encode_no_pad(json.marshal(claims)),
		"AAAA",
	])
	every digit in ["", "A"] {
		modulus := concat("", [digit | some _ in numbers.range(1, 342)])
		not verdict_with(forged, {"kid": "one", "kty": "RSA", "n": modulus, "e": "AQAB"}, now)
	}
}

test_unknown_trust_domains_have_no_tokens if {
	not verdict_of(signed({}, {}), "example.com", published({"kid": "one"}), now)
}

test_two_providers_of_one_issuer_have_no_tokens if {
	one := published({"kid": "one"})["example.org"].corp
	not verdict_of(signed({}, {}), "example.org", {"example.org": {"corp": one, "twin": one}}, now)
}

test_an_unknown_key_is_told if {
	hint(signed({"kid": "two"}, {})) == {"provider": "corp", "kid": "two"}
	not hint(signed({}, {}))
}

beside(raw, access) := answer if {
	known := published({"kid": "one"})
	answer := tokens.verified(raw, access, "example.org", now * 1000000000) with data.zerotrust_data.policy.providers as known
}

# The access token and its hash are those of OpenID Connect Core appendix A.4.
access := "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"

at_hash := "77QmUPtjPfzWtF2AnpK9RQ"

test_an_id_token_speaks_for_the_access_token_beside_it if {
	speaking := signed({}, {"at_hash": at_hash})
	beside(speaking, [access])
	beside(speaking, [])
	every tokens_beside in [[sprintf("%sx", [access])], [access, access], [[access]], [7], ["é"]] {
		not beside(speaking, tokens_beside)
	}
	not beside(signed({}, {}), [access])
	not beside(signed({}, {"at_hash": "77QmUPtjPfzWtF2AnpK9RR"}), [access])
}

test_an_access_token_speaks_for_itself if beside(signed({"typ": "at+jwt"}, {}), [access])
