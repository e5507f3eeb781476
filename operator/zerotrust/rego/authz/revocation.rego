# METADATA
# description: Certificates from before an identity's cut-off. While one is active, nobody passes without showing a certificate.
package zerotrust.authz.revocation

import data.zerotrust.authz.identity

revoked if {
	data.zerotrust_data.revocations.identities[identity.client]
	not _issued_since
}

_issued_since if {
	cutoff := data.zerotrust_data.revocations.identities[identity.client]
	is_number(cutoff)
	identity.not_before_ns >= cutoff * 1000000000
}
