# METADATA
# description: |
#   The certificate in Envoy's x-forwarded-client-cert. Only the last element is Envoy's own; the others, and how they are quoted,
#   may be the caller's work, so quotes must be even and nothing may be escaped.
package zerotrust.authz.inputs.xfcc

certificate(header, principal) := object.get(pairs, "cert", [])[0] if {
	principal != ""
	is_string(header)
	count(header) <= 65536
	not contains(header, `\`)
	count(regex.find_n(`"`, header, -1)) % 2 == 0
	elements := regex.find_n(`(?:[^,"]|"[^"]*")+`, header, -1)
	pairs := _pairs(elements[count(elements) - 1])
	pairs.uri == [principal]
	count(pairs.cert) == 1
}

_pairs(element) := {key: values |
	some [key, _] in _parts(element)
	values := [other[1] | some other in _parts(element); other[0] == key]
}

_parts(element) := [[lower(trim_space(key)), trim(value, `"`)] |
	some text in regex.find_n(`(?:[^;"]|"[^"]*")+`, element, -1)
	[_, key, value] := regex.find_all_string_submatch_n(`\A([^=]*)=(.*)\z`, text, 1)[0]
]
