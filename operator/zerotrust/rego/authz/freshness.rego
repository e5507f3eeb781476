# METADATA
# description: Whether what was downloaded may still be used. Nothing but a number in the future says so.
package zerotrust.authz.freshness

import data.zerotrust.authz.request

policy if {
	meta := data.zerotrust_data.policy.meta
	meta.schema == 1
	is_number(meta.not_after)
	time.now_ns() < meta.not_after * 1000000000
}

revocations if {
	meta := data.zerotrust_data.revocations.meta
	meta.schema == 1
	is_number(meta.not_after)
	time.now_ns() < meta.not_after * 1000000000
}

revocations if request.server.on_stale_revocations == "Allow"
