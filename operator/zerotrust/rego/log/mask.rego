# METADATA
# description: |
#   What decision logs keep of the input: who, whom, method, port, path without its query, and a few headers by name. All the rest
#   (credentials, cookies, bodies, certificates, unknown fields) is never logged.
package system.log

_kept_headers := {":authority", ":method", ":scheme", "content-type", "host", "traceparent", "user-agent", "x-request-id"}

_longest := 1024

# The whole input at once: nothing is kept that is not named here, whatever the shape of the input.
mask contains {"op": "upsert", "path": "/input", "value": _kept}

default _kept := {}

_kept := {"attributes": _attributes(input.input.attributes)} if {
	is_object(input.input.attributes)
} else := object.union(
	_texts(input.input, {"server"}),
	{
		"source": _source(_within(input.input, "source")),
		"request": _request(_within(input.input, "request")),
	},
)

_attributes(attributes) := {
	"source": _texts(_within(attributes, "source"), {"principal"}),
	"destination": object.union(
		_texts(_within(attributes, "destination"), {"principal"}),
		{"address": {"socketAddress": _numbers(
			_within(_within(_within(attributes, "destination"), "address"), "socketAddress"),
			{"portValue"},
		)}},
	),
	"contextExtensions": _texts(_within(attributes, "contextExtensions"), {"server"}),
	"request": {"http": object.union(
		_texts(_within(_within(attributes, "request"), "http"), {"id", "host"}),
		_request(_within(_within(attributes, "request"), "http")),
	)},
}

_source(source) := object.union(_texts(source, {"principal"}), object.filter(source, {"mtls"})) if {
	is_boolean(source.mtls)
} else := _texts(source, {"principal"})

_request(asked) := object.union_n([
	_texts(asked, {"method", "protocol"}),
	_numbers(asked, {"port"}),
	{"path": split(path, "?")[0] | path := _texts(asked, {"path"}).path},
	{"headers": _texts(_within(asked, "headers"), _kept_headers)},
])

# What an object has under a name, when that is an object as well.
_within(whole, name) := whole[name] if {
	is_object(whole[name])
} else := {}

_texts(whole, names) := {name: substring(whole[name], 0, _longest) | some name in names; is_string(whole[name])}

_numbers(whole, names) := {name: whole[name] | some name in names; is_number(whole[name])}
