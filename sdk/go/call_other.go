//go:build !wasip1

package dhow

import (
	"bytes"
	"cmp"
	"io"
	"net/http"
	"os"
	"strings"
)

// Outside the sandbox the endpoint is a sidecar.
func call(method, target string, header map[string]string, body []byte) (Answer, error) {
	port := cmp.Or(os.Getenv("DAPR_HTTP_PORT"), "3500")
	request, err := http.NewRequest(method, "http://127.0.0.1:"+port+target, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	for name, value := range header {
		request.Header.Set(name, value)
	}
	if token := os.Getenv("DAPR_API_TOKEN"); token != "" {
		request.Header.Set("dapr-api-token", token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	answer := Answer{Status: response.StatusCode, Header: map[string]string{}, Body: text}
	for name, values := range response.Header {
		answer.Header[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	return answer, err
}
