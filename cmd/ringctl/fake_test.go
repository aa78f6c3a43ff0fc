package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeAPI answers from files that were recorded: GET /v1/workers from
// api/GET_v1_workers.json. A number after the name is the status, as in
// POST_v1_operations.202.json, and one before it the turn: the first request gets
// .1.200.json, and each turn stays until the next. A stream of events sends one whenever the
// operation has been read.
type fakeAPI struct {
	server *httptest.Server
	dir    string

	mu       sync.Mutex
	requests []string
	turns    map[string]int
	changed  chan struct{} // closed and made anew at every request
	closed   chan struct{}
}

func newFakeAPI(dir string) *fakeAPI {
	f := &fakeAPI{
		dir: filepath.Join(dir, "api"), turns: map[string]int{},
		changed: make(chan struct{}), closed: make(chan struct{}),
	}
	f.server = httptest.NewServer(f)
	return f
}

func (f *fakeAPI) close() {
	close(f.closed)
	f.server.Close()
}

// record writes an answer.
func record(t *testing.T, dir, name, body string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "api"), 0o700), os.WriteFile(filepath.Join(dir, "api", name), []byte(body), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	text := r.Method + " " + r.URL.RequestURI()
	for _, name := range []string{"Authorization", "Last-Event-ID", "Idempotency-Key"} {
		if v := r.Header.Get(name); v != "" {
			text += "\n" + name + ": " + v
		}
	}
	text += "\n" + string(body)
	f.note(text)
	name := r.Method + strings.ReplaceAll(strings.TrimPrefix(r.URL.Path, "/prefixed"), "/", "_")
	if strings.HasSuffix(name, "_events") {
		f.stream(w, r, name)
		return
	}
	status, answer, ok := f.answer(name)
	if !ok {
		http.Error(w, "nothing recorded for "+name, http.StatusTeapot)
		return
	}
	kind := "application/json"
	switch {
	case status >= 400 && bytes.HasPrefix(answer, []byte("{")) && r.URL.Path != "/readyz":
		kind = "application/problem+json"
	case !bytes.HasPrefix(answer, []byte("{")):
		kind = "text/plain"
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_, _ = w.Write(answer)
}

func (f *fakeAPI) note(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, text)
	close(f.changed)
	f.changed = make(chan struct{})
}

// answer finds what was recorded, turn by turn.
func (f *fakeAPI) answer(name string) (status int, body []byte, ok bool) {
	files, _ := filepath.Glob(filepath.Join(f.dir, name+".*"))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turns[name]++
	type recorded struct {
		turn, status int
		file         string
	}
	var all []recorded
	for _, file := range files {
		one := recorded{1, http.StatusOK, file}
		numbers := strings.Split(strings.TrimPrefix(filepath.Base(file), name+"."), ".")
		for _, n := range numbers[:len(numbers)-1] {
			number, _ := strconv.Atoi(n)
			if number < 100 {
				one.turn = number
			} else {
				one.status = number
			}
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(x, y recorded) int { return cmp.Compare(x.turn, y.turn) })
	for _, one := range slices.Backward(all) {
		if one.turn <= f.turns[name] {
			body, err := os.ReadFile(one.file)
			return one.status, bytes.TrimSpace(body), err == nil
		}
	}
	return 0, nil, false
}

// stream sends an event for every time that the operation has been read.
func (f *fakeAPI) stream(w http.ResponseWriter, r *http.Request, name string) {
	status, mode, ok := f.answer(name)
	if ok && status != http.StatusOK {
		http.Error(w, "no streams", status)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	_ = out.Flush()
	for id, seen := 7, -1; ; {
		f.mu.Lock()
		turns, changed := f.turns[strings.TrimSuffix(name, "_events")], f.changed
		f.mu.Unlock()
		if turns != seen {
			seen = turns
			id++
			fmt.Fprintf(w, ": still here\n\nid: %d\nevent: ringmaster.operation.change.v1\ndata: {}\n\n", id)
			if out.Flush() != nil || string(mode) == "breaks" {
				return
			}
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		case <-f.closed:
			return
		}
	}
}

func (f *fakeAPI) all() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.requests, "\n")
}

func (f *fakeAPI) asked(text string) bool { return strings.Contains(f.all(), text) }

// await waits for a request.
func (f *fakeAPI) await(text string, most time.Duration) error {
	timer := time.NewTimer(most)
	defer timer.Stop()
	for {
		f.mu.Lock()
		changed := f.changed
		f.mu.Unlock()
		if f.asked(text) {
			return nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return fmt.Errorf("no request with %q came; requests:\n%s", text, f.all())
		}
	}
}
