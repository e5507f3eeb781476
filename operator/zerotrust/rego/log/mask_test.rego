package system.log_test

import data.system.log

_kept(asked) := upsert.value if {
	some upsert in log.mask with input as {"input": asked}
	upsert.op == "upsert"
	upsert.path == "/input"
}

test_only_what_is_named_is_kept if {
	asked := {
		"server": "s",
		"token": "secret",
		"source": {"principal": "p", "mtls": true, "certificate": "c"},
		"request": {"method": "GET", "path": "/a?secret", "port": 1, "headers": {"host": "h", "cookie": "secret"}, "body": "secret"},
	}
	_kept(asked) == {
		"server": "s",
		"source": {"principal": "p", "mtls": true},
		"request": {"method": "GET", "path": "/a", "port": 1, "headers": {"host": "h"}},
	}
}

test_of_envoys_request_too if {
	asked := {"attributes": {
		"source": {"principal": "p", "certificate": "c"},
		"destination": {"principal": "s", "address": {"socketAddress": {"portValue": 1}}},
		"contextExtensions": {"server": "s", "secret": "secret"},
		"request": {"http": {"id": "1", "path": "/a?secret", "headers": {"authorization": "secret"}}},
	}}
	_kept(asked) == {"attributes": {
		"source": {"principal": "p"},
		"destination": {"principal": "s", "address": {"socketAddress": {"portValue": 1}}},
		"contextExtensions": {"server": "s"},
		"request": {"http": {"id": "1", "path": "/a", "headers": {}}},
	}}
}

test_nothing_of_nonsense_is_kept if {
	every asked in ["secret", ["secret"], {"source": "secret", "request": "secret"}] {
		not contains(json.marshal(_kept(asked)), "secret")
	}
}
