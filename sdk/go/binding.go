package dhow

// Binding is an output binding. App.OnBinding takes events of input bindings.
type Binding struct{ name string }

// OpenBinding is the binding of this name.
func OpenBinding(name string) Binding { return Binding{name} }

// Invoke carries out an operation, such as create or exec. The data is any value that JSON has; the answer's body is
// what the binding answered.
func (b Binding) Invoke(operation string, data any, metadata map[string]string) (Answer, error) {
	request := map[string]any{"operation": operation, "data": data, "metadata": metadata}
	return ask("POST", path("v1.0", "bindings", b.name), nil, request)
}
