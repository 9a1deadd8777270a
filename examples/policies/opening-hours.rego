# Who may ask what; needs --policy-per-invocation. Loading is not restricted.
package dhow

# The one app that changes anything.
writer := "front"

default allow := false

allow if input.event in {"load", "update"}

allow if reads

# Events come from brokers and clocks, not from anybody.
allow if input.request.trigger in {"topic", "binding", "job", "configuration"}

allow if input.request.caller == writer

# The writer itself is asked from outside.
allow if {
	input.app_id == writer
	input.request.trigger == "http"
}

reads if input.request.method in {"GET", "HEAD"}

cause contains sprintf("only %v may %v %v of %v", [writer, input.request.method, input.request.path, input.app_id]) if {
	input.request
	not allow
}
