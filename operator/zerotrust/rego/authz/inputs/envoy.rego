# METADATA
# description: |
#   Envoy's ext_authz CheckRequest, as opa-envoy-plugin writes it. Envoy has verified the peer's certificate; who is called is its
#   own certificate, or what its configuration says as context extension `server`.
package zerotrust.authz.inputs.envoy

import data.zerotrust.authz.inputs.xfcc

request := {
	"server": object.get(extensions, "server", object.get(destination, "principal", "")),
	"principal": _principal,
	"certificate": _certificate,
	"mtls": _mtls,
	"method": object.get(_http, "method", ""),
	"path": object.get(_http, "path", ""),
	"port": destination.address.socketAddress.portValue,
	"protocol": object.get(destination.address.socketAddress, "protocol", "TCP"),
	"headers": _headers,
} if {
	destination := object.get(input.attributes, "destination", {})
	extensions := object.get(input.attributes, "contextExtensions", {})
}

_source := object.get(input.attributes, "source", {})

_http := input.attributes.request.http

_headers := object.get(_http, "headers", {})

_principal := object.get(_source, "principal", "")

default _certificate := ""

_certificate := _source.certificate if {
	_source.certificate != ""
} else := xfcc.certificate(_headers["x-forwarded-client-cert"], _principal)

default _mtls := false

_mtls if _principal != ""

_mtls if _certificate != ""
