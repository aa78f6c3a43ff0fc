// Package httpapitest is for the tests of handlers: a client that holds every
// answer against the contract, pkg/httpapi/openapi.yaml.
package httpapitest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	"github.com/pb33f/libopenapi-validator/paths"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"

	"ringmaster/pkg/httpapi"
)

// Contract is openapi.yaml, read.
type Contract struct {
	// Model is the document itself.
	Model     *v3.Document
	validator validator.Validator
	options   *config.ValidationOptions
}

// Load reads the contract.
func Load() (*Contract, error) {
	document, err := libopenapi.NewDocument(httpapi.OpenAPI())
	if err != nil {
		return nil, fmt.Errorf("reading openapi.yaml: %w", err)
	}
	model, err := document.BuildV3Model()
	if err != nil {
		return nil, fmt.Errorf("building the model of openapi.yaml: %w", err)
	}
	opts := []config.Option{
		config.WithStrictMode(), config.WithFormatAssertions(),
		// Parameters by kind, schemas and envelopes have contracts of their own.
		config.WithStrictIgnorePaths("$.body.parameters.**", "$.body.items[*].parameters.**", "$.body.items[*].data.**"),
		// What every answer has, and what belongs to a status rather than to a
		// route.
		config.WithStrictIgnoredHeadersExtra("X-Content-Type-Options", "WWW-Authenticate", "Cache-Control", "Allow"),
	}
	v := validator.NewValidatorFromV3Model(&model.Model, opts...)
	v.SetDocument(document)
	return &Contract{Model: &model.Model, validator: v, options: config.NewValidationOptions(opts...)}, nil
}

// CheckDocument fails the test unless the document itself is valid OpenAPI 3.1.
func (c *Contract) CheckDocument(t testing.TB) {
	t.Helper()
	if ok, errs := c.validator.ValidateDocument(); !ok {
		for _, err := range errs {
			t.Errorf("openapi.yaml: %s: %s %v", err.Message, err.Reason, err.SchemaValidationErrors)
		}
	}
}

// Check returns why an answer is not what the contract says. An answer to a
// path or a method that the contract does not have must be 404 or 405.
func (c *Contract) Check(r *http.Request, w *http.Response) error {
	if r.Method == http.MethodHead {
		// HEAD goes wherever GET does, without a body to check.
		return nil
	}
	if item, errs, _ := paths.FindPath(r, c.Model, c.options); item == nil || len(errs) > 0 {
		if w.StatusCode == http.StatusNotFound || w.StatusCode == http.StatusMethodNotAllowed {
			return nil
		}
		return fmt.Errorf("%s %s is not in the contract and was answered %d", r.Method, r.URL.Path, w.StatusCode)
	}
	ok, errs := c.validator.ValidateHttpResponse(r, w)
	if ok {
		return nil
	}
	var text strings.Builder
	for _, err := range errs {
		fmt.Fprintf(&text, "\n%s: %s", err.Message, err.Reason)
		for _, s := range err.SchemaValidationErrors {
			fmt.Fprintf(&text, "\n  %s: %s", s.FieldPath, s.Reason)
		}
	}
	return fmt.Errorf("%s %s answered %d, against the contract:%s", r.Method, r.URL.Path, w.StatusCode, text.String())
}

// Client asks a handler over a real connection and checks every answer.
type Client struct {
	// URL is the server's address, Prefix what the handler serves below.
	URL, Prefix string

	t        testing.TB
	contract *Contract
	http     *http.Client
}

// NewClient starts a server for the handler; it ends with the test.
func NewClient(t testing.TB, contract *Contract, handler http.Handler, change ...func(*http.Server)) *Client {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	for _, c := range change {
		c(server.Config)
	}
	server.Start()
	client := server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	t.Cleanup(func() {
		client.CloseIdleConnections()
		server.Close()
	})
	return &Client{URL: server.URL, t: t, contract: contract, http: client}
}

// Response is an answer, read whole.
type Response struct {
	Status int
	Header http.Header
	Body   string
}

// Option changes a request.
type Option func(*http.Request)

// Header sets a header of a request.
func Header(name, value string) Option {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// JSON says that the body is JSON.
func JSON() Option { return Header("Content-Type", "application/json") }

// Form says that the body is a form.
func Form() Option { return Header("Content-Type", "application/x-www-form-urlencoded") }

// Do sends a request and checks the answer against the contract. target is
// path and query, without the prefix.
func (c *Client) Do(method, target, body string, options ...Option) Response {
	c.t.Helper()
	r := c.Request(method, target, body, options...)
	w, err := c.http.Do(r)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, target, err)
	}
	defer w.Body.Close()
	content, err := io.ReadAll(w.Body)
	if err != nil {
		c.t.Fatalf("%s %s: reading the answer: %v", method, target, err)
	}
	w.Body = io.NopCloser(bytes.NewReader(content))
	seen := r.Clone(r.Context())
	// The contract knows neither the prefix nor trailing slashes.
	seen.URL.Path = strings.TrimRight(strings.TrimPrefix(seen.URL.Path, c.Prefix), "/")
	seen.URL.RawPath = strings.TrimRight(strings.TrimPrefix(seen.URL.RawPath, c.Prefix), "/")
	if err := c.contract.Check(seen, w); err != nil {
		c.t.Errorf("%v\nbody: %.2000s", err, content)
	}
	return Response{Status: w.StatusCode, Header: w.Header, Body: string(content)}
}

// Get is Do with GET and no body.
func (c *Client) Get(target string, options ...Option) Response {
	c.t.Helper()
	return c.Do(http.MethodGet, target, "", options...)
}

// Request makes a request for the server.
func (c *Client) Request(method, target, body string, options ...Option) *http.Request {
	c.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.URL+c.Prefix+target, reader)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, target, err)
	}
	for _, option := range options {
		option(r)
	}
	return r
}

// Stream sends a request and returns the answer unread, for streams. The caller
// closes the body.
func (c *Client) Stream(r *http.Request) *http.Response {
	c.t.Helper()
	w, err := c.http.Do(r)
	if err != nil {
		c.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	return w
}
