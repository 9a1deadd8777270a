// Package dhow gives Go guests the building blocks of dhow: state, messages, other apps, locks, secrets,
// configuration, bindings and jobs.
//
// Go compiles to WASI preview 1 (GOOS=wasip1), whose modules cannot call interfaces of components. So a guest asks its
// Dapr endpoint, as a Dapr app does, through two functions that dhow gives to such modules; no socket is involved.
// Compiled for any other system, the same program asks the sidecar at DAPR_HTTP_PORT.
//
// HTTP requests, messages and jobs reach the app as CGI requests; see [App].
package dhow

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Answer is what an endpoint or another app answered. Names of headers are in lower case.
type Answer struct {
	Status int
	Header map[string]string
	Body   []byte
}

// JSON reads the body.
func (a Answer) JSON(into any) error {
	return json.Unmarshal(a.Body, into)
}

// Kind says what sort of error an [Error] is.
type Kind string

// What a block may refuse with.
const (
	Denied      Kind = "denied"      // the manifest does not grant it
	NotFound    Kind = "not-found"   // no component, app or job of that name
	Conflict    Kind = "conflict"    // the etag is not the stored one, or the name is taken
	Invalid     Kind = "invalid"     // a repetition will not help
	Unsupported Kind = "unsupported" // the component is not able to do this
	Unavailable Kind = "unavailable" // a later attempt may succeed
	Failed      Kind = "failed"
)

// Error is an error of a block. Its text is for people and holds no secret.
type Error struct {
	Kind   Kind
	Status int
	Code   string
	Text   string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s", e.Kind, e.Text)
}

// Is tells whether an error is of this kind.
func Is(err error, kind Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == kind
}

// Call asks the app's Dapr endpoint: Call("GET", "/v1.0/metadata", nil, nil). What it answers, 500 included, is an
// answer and no error; the blocks below make errors of it.
func Call(method, target string, header map[string]string, body []byte) (Answer, error) {
	return call(method, target, header, body)
}

// ask calls the endpoint with JSON and makes an error of every status from 400 on.
func ask(method, target string, header map[string]string, value any) (Answer, error) {
	var body []byte
	if value != nil {
		text, err := json.Marshal(value)
		if err != nil {
			return Answer{}, err
		}
		body = text
		named := map[string]string{"content-type": "application/json"}
		for name, value := range header {
			named[name] = value
		}
		header = named
	}
	answer, err := call(method, target, header, body)
	if err == nil && answer.Status >= 400 {
		err = failure(answer)
	}
	return answer, err
}

func failure(answer Answer) error {
	e := &Error{Kind: Failed, Status: answer.Status, Text: string(answer.Body)}
	var told struct{ ErrorCode, Message string }
	if answer.JSON(&told) == nil && told.Message != "" {
		e.Code, e.Text = told.ErrorCode, told.Message
	}
	switch {
	case answer.Status == 403 || e.Code == "ERR_DIRECT_INVOKE_DENIED":
		e.Kind = Denied
	case answer.Status == 404 || strings.HasSuffix(e.Code, "NOT_FOUND"):
		e.Kind = NotFound
	case answer.Status == 409 || e.Code == "ERR_STATE_TRANSACTION" && isEtag(e.Text):
		e.Kind = Conflict
	case answer.Status == 501 || strings.HasSuffix(e.Code, "NOT_SUPPORTED"):
		e.Kind = Unsupported
	case answer.Status == 429 || answer.Status == 503 || answer.Status == 504:
		e.Kind = Unavailable
	case answer.Status < 500:
		e.Kind = Invalid
	}
	return e
}

// isEtag tells whether a transaction failed for an etag: Dapr's API answers that with 500, and only the text says it.
func isEtag(text string) bool {
	return strings.Contains(text, "etag does not match") || strings.Contains(text, "etag mismatch")
}

func path(parts ...string) string {
	escaped := make([]string, len(parts))
	for i, part := range parts {
		escaped[i] = url.PathEscape(part)
	}
	return "/" + strings.Join(escaped, "/")
}

func metadataQuery(metadata map[string]string) string {
	query := url.Values{}
	for name, value := range metadata {
		query.Set("metadata."+name, value)
	}
	if len(query) == 0 {
		return ""
	}
	return "?" + query.Encode()
}
