# METADATA
# description: |
#   What one row says about the request, as operator/zerotrust/policy/evaluate.py does: `match`, or the first thing that it
#   misses. What cannot be evaluated is missed by an Allow, and never saves anybody from a Deny.
package zerotrust.authz.conditions

import data.zerotrust.authz.credentials
import data.zerotrust.authz.paths
import data.zerotrust.authz.request
import data.zerotrust.authz.windows

outcome(row) := "other port" if {
	not [row.port, row.protocol] == [request.asked.port, request.asked.protocol]
} else := "ended" if {
	row.until
	not time.now_ns() < row.until * 1000000000
} else := "other method" if {
	row.methods
	not request.asked.method in row.methods
} else := "other path" if {
	row.paths
	not paths.matches(row.paths, request.segments)
} else := credentials.lacking(row.principal, row.effect) if {
	row.principal
} else := "mtls_required" if {
	row.require_mtls
	not request.asked.mtls
} else := "missing_scope" if {
	row.scopes
	not _scopes(row)
} else := "outside_hours" if {
	row.window
	_closed(row)
} else := "match"

_scopes(row) if {
	every scope in row.scopes {
		scope in credentials.scopes(row.principal)
	}
}

_closed(row) if {
	row.effect == "Allow"
	not windows.is_open(row.window)
}

_closed(row) if {
	row.effect == "Deny"
	windows.is_open(row.window) == false
}
