package dhow

import "net/url"

// Configuration is a configuration store.
type Configuration struct{ store string }

// Item is one value; Version is empty where the store keeps none.
type Item struct {
	Value    string
	Version  string
	Metadata map[string]string
}

// OpenConfiguration is the store of this name.
func OpenConfiguration(store string) Configuration { return Configuration{store} }

// Get reads the values of these keys, or of all if none is named. Keys that do not exist are left out.
func (c Configuration) Get(keys ...string) (map[string]Item, error) {
	target := path("v1.0", "configuration", c.store)
	if len(keys) > 0 {
		target += "?" + url.Values{"key": keys}.Encode()
	}
	answer, err := ask("GET", target, nil, nil)
	if err != nil || answer.Status == 204 {
		return nil, err
	}
	var items map[string]Item
	return items, answer.JSON(&items)
}

// Value reads one value; empty when there is none of that key.
func (c Configuration) Value(key string) (string, error) {
	items, err := c.Get(key)
	return items[key].Value, err
}
