package dhow

import (
	"crypto/rand"
	"fmt"
)

// Lock is a lock store.
type Lock struct{ store string }

// OpenLock is the store of this name; without any configuration there is "lockstore".
func OpenLock(store string) Lock { return Lock{store} }

// TryHold takes the lock for so many seconds at most. unlock gives it back, and is nil when somebody else holds it.
func (l Lock) TryHold(resource string, expirySeconds int) (unlock func() error, err error) {
	owner := make([]byte, 16)
	if _, err := rand.Read(owner); err != nil {
		return nil, err
	}
	request := map[string]any{
		"resourceId": resource, "lockOwner": fmt.Sprintf("%x", owner), "expiryInSeconds": expirySeconds,
	}
	answer, err := ask("POST", path("v1.0-alpha1", "lock", l.store), nil, request)
	if err != nil {
		return nil, err
	}
	var taken struct{ Success bool }
	if err := answer.JSON(&taken); err != nil || !taken.Success {
		return nil, err
	}
	return func() error {
		_, err := ask("POST", path("v1.0-alpha1", "unlock", l.store), nil, request)
		return err
	}, nil
}
