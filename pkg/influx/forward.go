package influx

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
)

// Forwarded is a client's request that is handed to a server as it is.
type Forwarded struct {
	Method, Path string
	// Query is the query string. The parameters u and p, by which clients bring
	// credentials, must have been taken out.
	Query string
	// Header is sent as it is, without what concerns one connection only and
	// without the client's credentials.
	Header http.Header
	Body   io.Reader
	// Length is that of the body, -1 if it is not known.
	Length int64
}

// notForwarded are headers that concern one connection, or are those of the client.
func notForwarded() []string {
	return []string{
		"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding",
		"Upgrade", "Authorization", "Cookie", "Host", "Content-Length", "Expect",
	}
}

// Forward hands a request to the server, with the credentials of this Client, and
// returns when the answer begins, whatever its status is. The caller closes its
// body. A body that ends before the answer is whole ends with an error other than
// io.EOF.
func (c *Client) Forward(ctx context.Context, f Forwarded) (*http.Response, error) {
	op := "forwarding " + f.Path + " to " + c.URL()
	target := c.base.String() + f.Path
	if f.Query != "" {
		target += "?" + f.Query
	}
	req, err := http.NewRequestWithContext(ctx, f.Method, target, f.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	if f.Body != nil {
		req.ContentLength = f.Length
	}
	maps.Copy(req.Header, f.Header)
	for _, name := range notForwarded() {
		req.Header.Del(name)
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header["User-Agent"] = nil // none is sent
	}
	res, err := c.do(c.reads, req)
	if err != nil {
		return nil, c.broke(ctx, op, err)
	}
	return res, nil
}
