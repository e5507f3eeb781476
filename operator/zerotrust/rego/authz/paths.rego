# METADATA
# description: |
#   Paths exactly as operator/zerotrust/policy/paths.py reads them: what a server could read in two ways is refused.
package zerotrust.authz.paths

# The decoded segments of a request's path; undefined when it is ambiguous.
segments(path) := parts if {
	raw := split(path, "?")[0]
	startswith(raw, "/")
	count(raw) <= 8192
	decoded := trim_suffix(_decoded(raw), "/")

	# Octets that are no UTF-8 are matched as U+FFFD; no segment is empty, `.` or `..`.
	not regex.match(`[\x00-\x20\x7f-\x{9f}\\;#%?\x{fffd}]|/\.{0,2}(/|\z)`, decoded)
	split_up := split(decoded, "/")
	parts := array.slice(split_up, 1, count(split_up))
}

# Undefined for a broken escape, and for those of a slash, a backslash and NUL.
_decoded(raw) := raw if {
	not contains(raw, "%")
} else := urlquery.decode(replace(raw, "+", "%2B")) if {
	not regex.match(`%(2[Ff]|5[Cc]|00)`, raw)
}

# Whether one of the patterns matches: `*` stands for one segment, `**` for any number of them.
matches(patterns, parts) if parts in patterns

# The usual `/a/b/**` without an expression, which costs much more.
matches(patterns, parts) if {
	some pattern in patterns
	last := count(pattern) - 1
	pattern[last] == "**"
	array.slice(parts, 0, last) == array.slice(pattern, 0, last)
}

matches(patterns, parts) if {
	some pattern in patterns
	not _is_prefix(pattern)
	expression := _expression(pattern)
	regex.match(expression, concat("", [text | some part in parts; text := concat("", ["/", part])]))
}

_is_prefix(pattern) if {
	last := count(pattern) - 1
	pattern[last] == "**"
	head := array.slice(pattern, 0, last)
	not "*" in head
	not "**" in head
}

_expression(pattern) := concat("", [`\A`, concat("", [_segment(one) | some one in pattern]), `\z`]) if {
	count({"*", "**"} & {one | some one in pattern}) > 0
}

_segment("*") := `/[^/]+`

_segment("**") := `(?:/[^/]+)*`

_segment(one) := concat("", ["/", regex.replace(one, `[^A-Za-z0-9_]`, `\$0`)]) if not one in {"*", "**"}
