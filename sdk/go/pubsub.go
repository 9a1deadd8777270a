package dhow

// PubSub is a broker. App.OnMessage takes messages.
type PubSub struct{ name string }

// OpenPubSub is the broker of this name; without any configuration there is "pubsub".
func OpenPubSub(name string) PubSub { return PubSub{name} }

// Publish publishes a value as JSON. Success means that the broker has it.
func (p PubSub) Publish(topic string, value any) error {
	_, err := ask("POST", path("v1.0", "publish", p.name, topic), nil, value)
	return err
}

// PublishBytes publishes bytes of any kind with metadata, such as ttlInSeconds.
func (p PubSub) PublishBytes(topic string, data []byte, contentType string, metadata map[string]string) error {
	header := map[string]string{"content-type": contentType}
	answer, err := Call("POST", path("v1.0", "publish", p.name, topic)+metadataQuery(metadata), header, data)
	if err == nil && answer.Status >= 400 {
		err = failure(answer)
	}
	return err
}
