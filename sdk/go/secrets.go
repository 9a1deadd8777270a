package dhow

// Secrets is a secret store.
type Secrets struct{ store string }

// OpenSecrets is the store of this name.
func OpenSecrets(store string) Secrets { return Secrets{store} }

// Get reads the values of a secret by name; a secret of one value has its own name.
func (s Secrets) Get(name string, metadata map[string]string) (map[string]string, error) {
	answer, err := ask("GET", path("v1.0", "secrets", s.store, name)+metadataQuery(metadata), nil, nil)
	if err != nil || answer.Status == 204 {
		return nil, err
	}
	var secret map[string]string
	return secret, answer.JSON(&secret)
}

// Value reads the value of a secret that has one.
func (s Secrets) Value(name string) (string, error) {
	secret, err := s.Get(name, nil)
	return secret[name], err
}

// All reads all secrets that the app may.
func (s Secrets) All(metadata map[string]string) (map[string]map[string]string, error) {
	answer, err := ask("GET", path("v1.0", "secrets", s.store, "bulk")+metadataQuery(metadata), nil, nil)
	if err != nil {
		return nil, err
	}
	var secrets map[string]map[string]string
	return secrets, answer.JSON(&secrets)
}
