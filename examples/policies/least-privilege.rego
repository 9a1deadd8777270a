# A module claims what it needs by name, and nothing that its manifest does not grant: what is claimed and not granted
# would be in force as soon as somebody edits the manifest.
package dhow

# Kinds that manifests give without a grant.
without_grant := {"serve", "log", "files"}

default allow := false

allow if count(cause) == 0

cause contains "the module is not signed" if input.token == ""

# wasmcloud:keyvalue, wascc:messaging and the like.
cause contains sprintf("%v is a whole block; name what is needed, such as dhow:state=orders", [capability]) if {
	some capability in input.claims.capabilities
	regex.match(`^(wasmcloud|wascc|wascap):`, capability)
}

cause contains sprintf("%v is everything of its kind; name what is needed", [capability]) if {
	some capability in input.claims.capabilities
	regex.match(`^dhow:[a-z]+(=\*)?$`, capability)
	not trim_prefix(capability, "dhow:") in {"serve", "log"}
}

cause contains sprintf("%v is claimed, and the manifest does not grant it", [capability]) if {
	some capability in input.claims.capabilities
	startswith(capability, "dhow:")
	parts := split(trim_prefix(capability, "dhow:"), "=")
	not parts[0] in without_grant
	not granted(parts)
}

granted(parts) if parts[1] in input.grants[parts[0]]
