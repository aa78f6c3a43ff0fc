package query

import (
	"sync"
	"time"
)

// lessonTime is how long a backend that has broken a query is not asked again. By
// then the prober knows.
const lessonTime = 3 * time.Second

// lessons are what queries have learned about backends.
type lessons struct {
	now func() time.Time

	mu     sync.Mutex
	failed map[string]lesson
}

type lesson struct {
	until  time.Time
	reason string
}

// failedWith keeps that a backend has broken a query.
func (l *lessons) failedWith(url, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = map[string]lesson{}
	}
	l.failed[url] = lesson{l.now().Add(lessonTime), reason}
}

// of says what is wrong with a backend, "" if nothing is known.
func (l *lessons) of(url string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, ok := l.failed[url]
	if !ok {
		return ""
	}
	if l.now().After(k.until) {
		delete(l.failed, url)
		return ""
	}
	return k.reason
}
