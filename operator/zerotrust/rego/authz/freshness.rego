# METADATA
# description: Whether what was downloaded may still be used. Nothing but a number in the future says so.
package zerotrust.authz.freshness

import data.zerotrust.authz.request

policy if {
	data.zerotrust.policy.meta.schema == 1
	_until(data.zerotrust.policy.meta)
}

revocations if {
	data.zerotrust.revocations.meta.schema == 1
	_until(data.zerotrust.revocations.meta)
}

revocations if request.server.on_stale_revocations == "Allow"

_until(meta) if {
	is_number(meta.not_after)
	time.now_ns() < meta.not_after * 1000000000
}
