# In the form of Waxosuit: the decision is system.main, and the token is all that is asked for. It serves an OPA, too:
# `opa run --server waxosuit.rego`, and OPA_URL=http://127.0.0.1:8181 for the host.
package system

forbidden := {"wascap:http_client", "wascc:http_client", "wasmcloud:httpclient"}

main := {"allow": allow, "cause": cause}

default allow := false

allow if {
	claims
	count(cause) == 0
}

claims := payload if [_, payload, _] := io.jwt.decode(input.token)

# Where the capabilities stand depends on the generation of the token.
capabilities contains capability if some capability in claims.wascap.caps

capabilities contains capability if some capability in claims.caps

cause contains sprintf("%v is forbidden here", [capability]) if {
	some capability in capabilities
	capability in forbidden
}
