# Versions that are known to be bad do not come back.
package dhow

# By app: the least version that may run.
least := {"orders": "1.4.2", "front": "2.0.0"}

default allow := false

allow if count(cause) == 0

cause contains sprintf("%v needs a module that names its version", [input.app_id]) if {
	least[input.app_id]
	not semver.is_valid(object.get(input.claims, "version", ""))
}

cause contains sprintf("%v %v is older than %v", [input.app_id, input.claims.version, wanted]) if {
	wanted := least[input.app_id]
	semver.is_valid(input.claims.version)
	semver.compare(input.claims.version, wanted) < 0
}
