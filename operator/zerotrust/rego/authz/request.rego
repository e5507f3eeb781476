# METADATA
# description: |
#   The request, whoever asks. `valid` says that it has the shape of the contract, `readable` that its method and path can be
#   read in one way only.
package zerotrust.authz.request

import data.zerotrust.authz.inputs.envoy
import data.zerotrust.authz.inputs.pep
import data.zerotrust.authz.paths
import data.zerotrust.authz.spiffe

asked := envoy.request if {
	input.attributes
} else := envoy.request if {
	input.attributes == false
} else := pep.request

valid if {
	is_string(asked.server)
	asked.server != ""
	is_string(asked.principal)
	is_string(asked.certificate)
	count(asked.certificate) <= 65536
	is_boolean(asked.mtls)
	is_string(asked.method)
	is_string(asked.path)
	is_number(asked.port)
	asked.port == round(asked.port)
	asked.port >= 1
	asked.port <= 65535
	asked.protocol in {"TCP", "UDP", "SCTP"}
	is_object(asked.headers)
}

readable if {
	# Some servers read `delete` as DELETE.
	regex.match(`\A[A-Z][A-Z-]*\z`, asked.method)
	segments
}

segments := paths.segments(asked.path)

server := data.zerotrust.policy.servers[asked.server]

# The server's ID for answers and logs: nothing that is no SPIFFE ID gets there.
default named_server := ""

named_server := asked.server if spiffe.is_workload(asked.server)
