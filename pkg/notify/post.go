package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"ringmaster/pkg/ledger"
)

// maxAnswer bounds what is read of an answer, to use its connection again.
const maxAnswer = 64 << 10

// newClient returns a client that goes where it is told to and nowhere else.
func newClient(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout:       timeout,
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 1, IdleConnTimeout: timeout, TLSHandshakeTimeout: timeout},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// post sends a notice once. nil means that it was taken, with a status of 2xx. An
// error never has the URL in it, which may hold a token.
func (s *Sender) post(ctx context.Context, n ledger.Notice) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.options.URL, bytes.NewReader(n.Body))
	if err != nil {
		return errors.New("the URL of the webhook cannot be used")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", s.options.UserAgent)
	req.Header.Set("Idempotency-Key", n.ID)
	res, err := s.client.Do(req)
	if err != nil {
		if broken, ok := errors.AsType[*url.Error](err); ok {
			err = broken.Err
		}
		return fmt.Errorf("telling the webhook: %w", err)
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, maxAnswer)
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("the webhook answered %s", res.Status)
	}
	return nil
}
