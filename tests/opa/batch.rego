# Decides many cases in one evaluation; only tests load it.
package differential

decision := [answer |
	some case in input.cases
	answer := data.zerotrust.authz.decision with input as case.input with time.now_ns as case.now_ns
]

envoy := [answer |
	some case in input.cases
	answer := data.zerotrust.authz.envoy with input as case.input with time.now_ns as case.now_ns
]

mask := [answer |
	some case in input.cases
	answer := data.system.log.mask with input as {"input": case.input}
]
