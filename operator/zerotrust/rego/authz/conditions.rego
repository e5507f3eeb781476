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
	not _port(row)
} else := "ended" if {
	not _lasts(row)
} else := "other method" if {
	not _method(row)
} else := "other path" if {
	not _path(row)
} else := credentials.lacking(row.principal, row.effect) if {
	row.principal
} else := "mtls_required" if {
	row.require_mtls
	not request.asked.mtls
} else := "missing_scope" if {
	row.scopes
	not _scopes(row)
} else := "outside_hours" if {
	_closed(row)
} else := "match"

_port(row) if {
	row.port == request.asked.port
	row.protocol == request.asked.protocol
}

_lasts(row) if not row.until

_lasts(row) if time.now_ns() < row.until * 1000000000

_method(row) if not row.methods

_method(row) if request.asked.method in row.methods

_path(row) if not row.paths

_path(row) if paths.matches(row.paths, request.segments)

_scopes(row) if {
	every scope in row.scopes {
		scope in credentials.scopes(row.principal)
	}
}

_closed(row) if {
	row.window
	row.effect == "Allow"
	not windows.is_open(row.window)
}

_closed(row) if {
	row.window
	row.effect == "Deny"
	windows.is_open(row.window) == false
}
