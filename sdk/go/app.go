package dhow

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
)

// App is what arrives: HTTP requests, messages, jobs, events of bindings. dhow starts the program once for each of
// them, as a CGI program (RFC 3875); Run answers that one.
//
// Messages, jobs and events come by HTTP, as in any Dapr app: at /dhow/messages/<n>, /job/<name> and /<binding>.
// An app with a route in the manifest can get such requests from outside, too; give an app that takes events no route
// if that matters.
type App struct {
	serve    func(Request) Response
	topics   []topic
	jobs     func(Due) error
	bindings map[string]func(BindingEvent) error
}

type topic struct {
	pubsub, topic string
	handle        func(Event) error
}

// Request is a request to the app. Names of headers are in lower case.
type Request struct {
	Method string
	Path   string
	Query  url.Values
	Header map[string]string
	Body   []byte
}

// JSON reads the body.
func (r Request) JSON(into any) error { return json.Unmarshal(r.Body, into) }

// Response is the app's answer; Status 0 is 200.
type Response struct {
	Status int
	Header map[string]string
	Body   []byte
}

// JSON makes a response out of a value.
func JSON(status int, value any) Response {
	body, err := json.Marshal(value)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return Response{Status: 500}
	}
	return Response{status, map[string]string{"Content-Type": "application/json"}, body}
}

// Event is a message, taken out of its CloudEvent.
type Event struct {
	ID, Source, Type, Subject, PubSub, Topic, ContentType string
	Data                                                  []byte
}

// JSON reads the data.
func (e Event) JSON(into any) error { return json.Unmarshal(e.Data, into) }

// Due is a job that is due.
type Due struct {
	Name string
	Data []byte
}

// JSON reads the data.
func (d Due) JSON(into any) error { return json.Unmarshal(d.Data, into) }

// BindingEvent is an event of an input binding. What goes with it is in the header, with names in lower case.
type BindingEvent struct {
	Name   string
	Header map[string]string
	Data   []byte
}

// Drop makes an error that ends a message: it goes to the dead-letter topic if there is one. After any other error it
// comes again, as the resiliency policy says.
func Drop(text string) error { return dropped(text) }

type dropped string

func (d dropped) Error() string { return string(d) }

// OnRequest serves HTTP.
func (a *App) OnRequest(serve func(Request) Response) { a.serve = serve }

// OnMessage subscribes to a topic.
func (a *App) OnMessage(pubsub, name string, handle func(Event) error) {
	a.topics = append(a.topics, topic{pubsub, name, handle})
}

// OnJob takes the app's jobs. After an error the job's failure policy decides.
func (a *App) OnJob(handle func(Due) error) { a.jobs = handle }

// OnBinding takes the events of an input binding. After an error the event comes again.
func (a *App) OnBinding(name string, handle func(BindingEvent) error) {
	if a.bindings == nil {
		a.bindings = map[string]func(BindingEvent) error{}
	}
	a.bindings[name] = handle
}

// Run answers the request that the program was started for.
func (a *App) Run() {
	request, err := incoming()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	response := a.answer(request)
	out := bufio.NewWriter(os.Stdout)
	if response.Status == 0 {
		response.Status = 200
	}
	fmt.Fprintf(out, "Status: %d\n", response.Status)
	for name, value := range response.Header {
		fmt.Fprintf(out, "%s: %s\n", name, strings.NewReplacer("\r", " ", "\n", " ").Replace(value))
	}
	out.WriteString("\n")
	out.Write(response.Body)
	if err := out.Flush(); err != nil {
		os.Exit(1)
	}
}

func incoming() (Request, error) {
	if os.Getenv("REQUEST_METHOD") == "" {
		return Request{}, errors.New("this program answers HTTP requests: serve it with a route in dhow.toml and `dhow up`")
	}
	body, err := io.ReadAll(os.Stdin)
	if err != nil {
		return Request{}, fmt.Errorf("reading the body: %w", err)
	}
	query, err := url.ParseQuery(os.Getenv("QUERY_STRING"))
	if err != nil {
		return Request{}, fmt.Errorf("the query: %w", err)
	}
	header := map[string]string{"content-type": os.Getenv("CONTENT_TYPE")}
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		if name, found := strings.CutPrefix(name, "HTTP_"); found {
			header[strings.ToLower(strings.ReplaceAll(name, "_", "-"))] = value
		}
	}
	return Request{os.Getenv("REQUEST_METHOD"), os.Getenv("PATH_INFO"), query, header, body}, nil
}

func (a *App) answer(request Request) Response {
	name := strings.TrimPrefix(request.Path, "/")
	if request.Path == "/dapr/subscribe" && len(a.topics) > 0 {
		subscriptions := []map[string]string{}
		for n, topic := range a.topics {
			route := fmt.Sprintf("/dhow/messages/%d", n)
			subscriptions = append(subscriptions, map[string]string{"pubsubname": topic.pubsub, "topic": topic.topic, "route": route})
		}
		return JSON(200, subscriptions)
	}
	for n, topic := range a.topics {
		if request.Method == "POST" && request.Path == fmt.Sprintf("/dhow/messages/%d", n) {
			return message(topic, request)
		}
	}
	if job, found := strings.CutPrefix(request.Path, "/job/"); found && request.Method == "POST" && a.jobs != nil {
		return outcome("job "+job, a.jobs(Due{job, request.Body}))
	}
	if handle := a.bindings[name]; handle != nil {
		if request.Method == "OPTIONS" {
			return Response{}
		}
		return outcome("binding "+name, handle(BindingEvent{name, request.Header, request.Body}))
	}
	if a.serve == nil {
		return Response{Status: 404}
	}
	return a.serve(request)
}

func outcome(what string, err error) Response {
	if err == nil {
		return Response{}
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
	return Response{Status: 500}
}

func message(topic topic, request Request) Response {
	var envelope struct {
		ID, Source, Type, Subject, PubSubName string
		Topic, DataContentType                string
		Data                                  json.RawMessage
		DataBase64                            []byte `json:"data_base64"`
	}
	if err := json.Unmarshal(request.Body, &envelope); err != nil {
		fmt.Fprintf(os.Stderr, "message of topic %s: no CloudEvent: %v\n", topic.topic, err)
		return JSON(200, map[string]string{"status": "DROP"})
	}
	event := Event{
		ID: envelope.ID, Source: envelope.Source, Type: envelope.Type, Subject: envelope.Subject,
		PubSub: topic.pubsub, Topic: topic.topic, ContentType: envelope.DataContentType, Data: envelope.Data,
	}
	var text string
	switch {
	case envelope.DataBase64 != nil:
		event.Data = envelope.DataBase64
	case !isJSON(envelope.DataContentType) && json.Unmarshal(envelope.Data, &text) == nil:
		event.Data = []byte(text)
	}
	err := topic.handle(event)
	var drop dropped
	switch {
	case err == nil:
		return JSON(200, map[string]string{"status": "SUCCESS"})
	case errors.As(err, &drop):
		fmt.Fprintf(os.Stderr, "message of topic %s: %v\n", topic.topic, err)
		return JSON(200, map[string]string{"status": "DROP"})
	default:
		fmt.Fprintf(os.Stderr, "message of topic %s: %v\n", topic.topic, err)
		return JSON(200, map[string]string{"status": "RETRY"})
	}
}

// isJSON tells whether data of this media type stands in the envelope as such.
func isJSON(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.HasSuffix(media, "/json") || strings.HasSuffix(media, "+json")
}
