# METADATA
# description: |
#   The request, whoever asks. `valid` says that it has the shape of the contract, `segments` are there where its method and path
#   can be read in one way only.
package zerotrust.authz.request

import data.zerotrust.authz.inputs.envoy
import data.zerotrust.authz.inputs.pep
import data.zerotrust.authz.paths
import data.zerotrust.authz.spiffe

asked := envoy.request if {
	input.attributes = _
} else := pep.request

valid if {
	{
		"server": server_id,
		"principal": principal,
		"certificate": certificate,
		"mtls": mtls,
		"method": method,
		"path": path,
		"port": port,
		"protocol": protocol,
		"headers": headers,
	} = asked
	is_string(server_id)
	server_id != ""
	is_string(principal)
	is_string(certificate)
	count(certificate) <= 65536
	is_boolean(mtls)
	is_string(method)
	is_string(path)
	is_number(port)
	port == round(port)
	port >= 1
	port <= 65535
	protocol in {"TCP", "UDP", "SCTP"}
	is_object(headers)
}

# The segments of the path; undefined where method or path could be read in two ways. Some servers read `delete` as DELETE.
segments := paths.segments(asked.path) if regex.match(`\A[A-Z][A-Z-]*\z`, asked.method)

server := data.zerotrust_data.policy.servers[asked.server]

# The server's ID for answers and logs: nothing that is no SPIFFE ID gets there.
default named_server := ""

named_server := asked.server if {
	server
} else := asked.server if {
	spiffe.is_workload(asked.server)
}
