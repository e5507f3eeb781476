# METADATA
# description: The plain contract for HTTP enforcement points (ADR 0009); what is absent counts as empty.
package zerotrust.authz.inputs.pep

request := {
	"server": input.server,
	"principal": object.get(_source, "principal", ""),
	"certificate": object.get(_source, "certificate", ""),
	"mtls": object.get(_source, "mtls", false),
	"method": object.get(input.request, "method", ""),
	"path": object.get(input.request, "path", ""),
	"port": input.request.port,
	"protocol": object.get(input.request, "protocol", "TCP"),
	"headers": object.get(input.request, "headers", {}),
}

_source := object.get(input, "source", {})
