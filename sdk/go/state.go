package dhow

import (
	"encoding/json"
	"strconv"
)

// attempts is how often [Update] writes before it gives up.
const attempts = 20

// State is a state store. Its keys are the app's own unless the component's keyPrefix says otherwise.
type State struct{ store string }

// SetOptions says how to write; the zero value is over whatever is there, to stay.
type SetOptions struct {
	// ETag: write only while the stored etag is this one.
	ETag string
	// FirstWrite: write only while the key is absent.
	FirstWrite bool
	// TTLSeconds: the value disappears so many seconds after the write.
	TTLSeconds int
}

// OpenState is the store of this name; without any configuration there is "statestore".
func OpenState(store string) State { return State{store} }

// Get reads a value out of JSON; the etag is empty when there is no such key.
func (s State) Get(key string, into any) (etag string, err error) {
	answer, err := ask("GET", path("v1.0", "state", s.store, key), nil, nil)
	if err != nil || answer.Status == 204 {
		return "", err
	}
	return answer.Header["etag"], answer.JSON(into)
}

// Set writes a value as JSON, over whatever is there.
func (s State) Set(key string, value any) error { return s.SetWith(key, value, SetOptions{}) }

// SetWith writes a value as JSON; [Conflict] when the options do not allow it.
func (s State) SetWith(key string, value any, options SetOptions) error {
	_, err := ask("POST", path("v1.0", "state", s.store), nil, []any{entry(key, value, options)})
	return err
}

// Update reads, changes and writes a value, again if somebody else wrote it in between; the new value. A key that is
// not there begins with the zero value.
func Update[T any](s State, key string, change func(T) T) (T, error) {
	for attempt := 1; ; attempt++ {
		var value T
		etag, err := s.Get(key, &value)
		if err != nil {
			return value, err
		}
		value = change(value)
		err = s.SetWith(key, value, SetOptions{ETag: etag, FirstWrite: etag == ""})
		if err == nil || !Is(err, Conflict) || attempt == attempts {
			return value, err
		}
	}
}

// Delete deletes a key, with an etag that is not empty only in that version. A key that is not there is no error.
func (s State) Delete(key, etag string) error {
	header := map[string]string{}
	if etag != "" {
		header["if-match"] = etag
	}
	_, err := ask("DELETE", path("v1.0", "state", s.store, key), header, nil)
	return err
}

// Transaction collects operations that Commit carries out together.
type Transaction struct {
	store      string
	operations []any
}

// Transaction begins one.
func (s State) Transaction() *Transaction { return &Transaction{store: s.store} }

// Set will write a value as JSON if the options allow it.
func (t *Transaction) Set(key string, value any, options SetOptions) *Transaction {
	t.operations = append(t.operations, map[string]any{"operation": "upsert", "request": entry(key, value, options)})
	return t
}

// Delete will delete a key.
func (t *Transaction) Delete(key string) *Transaction {
	t.operations = append(t.operations, map[string]any{"operation": "delete", "request": map[string]any{"key": key}})
	return t
}

// Commit carries out all operations in order, or none.
func (t *Transaction) Commit() error {
	_, err := ask("POST", path("v1.0", "state", t.store, "transaction"), nil, map[string]any{"operations": t.operations})
	return err
}

// Query searches values, in the language of Dapr's state API; results are keys and values.
func (s State) Query(query any) (results []struct {
	Key  string
	Data json.RawMessage
	ETag string
}, token string, err error) {
	answer, err := ask("POST", path("v1.0-alpha1", "state", s.store, "query"), nil, query)
	if err != nil || answer.Status == 204 {
		return nil, "", err
	}
	found := struct {
		Results *[]struct {
			Key  string
			Data json.RawMessage
			ETag string
		}
		Token *string
	}{&results, &token}
	return results, token, answer.JSON(&found)
}

func entry(key string, value any, options SetOptions) map[string]any {
	entry := map[string]any{"key": key, "value": value}
	if options.ETag != "" {
		entry["etag"] = options.ETag
		entry["options"] = map[string]string{"concurrency": "first-write"}
	}
	if options.FirstWrite {
		entry["options"] = map[string]string{"concurrency": "first-write"}
	}
	if options.TTLSeconds > 0 {
		entry["metadata"] = map[string]string{"ttlInSeconds": strconv.Itoa(options.TTLSeconds)}
	}
	return entry
}
