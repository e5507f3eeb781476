# METADATA
# description: |
#   Who calls. A principal was verified by the enforcement point, a certificate alone is verified here, and with both they must
#   agree.
package zerotrust.authz.identity

import data.zerotrust.authz.request
import data.zerotrust.authz.spiffe

# The caller's SPIFFE ID; undefined for a caller without one.
client := request.asked.principal if {
	request.asked.certificate == ""
	spiffe.is_workload(request.asked.principal)
} else := _certificate_id if {
	request.asked.principal == _certificate_id
} else := _certificate_id if {
	request.asked.principal == ""
	_verified
}

# When the caller's certificate begins to be valid, in nanoseconds since 1970; undefined without a certificate.
not_before_ns := time.parse_rfc3339_ns(_leaf.NotBefore)

# An X.509-SVID has exactly one URI (X509-SVID section 2).
_certificate_id := _leaf.URIStrings[0] if {
	count(_leaf.URIStrings) == 1
	spiffe.is_workload(_leaf.URIStrings[0])
	_leaf.IsCA == false
}

_verified if {
	some authority in data.zerotrust_data.policy.authorities[spiffe.trust_domain(_certificate_id)]

	# The first certificate is the root, so the caller's part must never come first.
	crypto.x509.parse_and_verify_certificates_with_options(
		concat("\n", [authority, _leaf_pem]),
		{"KeyUsages": ["KeyUsageClientAuth"], "CurrentTime": time.now_ns()},
	)[0]
}

_leaf := crypto.x509.parse_certificates(_leaf_pem)[0]

# TLS order: the leaf comes first. Of what else is there, nothing is used.
_leaf_pem := regex.find_n(`-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----`, _text, 1)[0]

_text := urlquery.decode(replace(request.asked.certificate, "+", "%2B")) if {
	contains(request.asked.certificate, "%")
} else := request.asked.certificate
