package dhow

import "strings"

// Invoke sends a request to an app, wherever it runs, and waits for the whole answer. That the app answers 404 or 500
// is an answer and no error; that it cannot be reached or may not be called is answered by the endpoint with 4xx or
// 5xx and an errorCode.
func Invoke(appID, method, target string, header map[string]string, body []byte) (Answer, error) {
	return Call(method, methodPath(appID, target), header, body)
}

// InvokeJSON reads JSON of an app; into may be nil, and so may value, which makes it a GET. A status from 400 on is an
// [Error].
func InvokeJSON(appID, target string, value, into any) error {
	method := "POST"
	if value == nil {
		method = "GET"
	}
	answer, err := ask(method, methodPath(appID, target), nil, value)
	if err != nil || into == nil {
		return err
	}
	return answer.JSON(into)
}

func methodPath(appID, target string) string {
	return path("v1.0", "invoke", appID, "method") + "/" + strings.TrimPrefix(target, "/")
}
