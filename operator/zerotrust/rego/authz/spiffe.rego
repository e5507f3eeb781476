# METADATA
# description: SPIFFE IDs as X.509-SVIDs carry them (SPIFFE-ID.md sections 2.1 to 2.4); ours are written in one way only.
package zerotrust.authz.spiffe

is_workload(id) if {
	is_string(id)
	count(id) <= 2048
	regex.match(`\Aspiffe://[a-z0-9._-]+(/([a-zA-Z0-9_-]|\.[a-zA-Z0-9_-]|\.\.[a-zA-Z0-9._-])[a-zA-Z0-9._-]*)+\z`, id)
}

# Of an ID that is one.
trust_domain(id) := split(id, "/")[2]
