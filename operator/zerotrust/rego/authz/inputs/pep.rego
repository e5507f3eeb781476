# METADATA
# description: The plain contract for HTTP enforcement points (ADR 0009); what is absent counts as empty.
package zerotrust.authz.inputs.pep

request := {
	"server": input.server,
	"principal": object.get(source, "principal", ""),
	"certificate": object.get(source, "certificate", ""),
	"mtls": object.get(source, "mtls", false),
	"method": object.get(asked, "method", ""),
	"path": object.get(asked, "path", ""),
	"port": asked.port,
	"protocol": object.get(asked, "protocol", "TCP"),
	"headers": object.get(asked, "headers", {}),
} if {
	asked := input.request
	source := object.get(input, "source", {})
}
