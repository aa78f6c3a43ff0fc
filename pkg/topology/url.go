package topology

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
)

// CheckURL reports what is wrong with the address of a backend; nil if nothing is.
// The error never quotes the address, which can hold a password in the wrong place.
func CheckURL(address string) error {
	u, err := url.Parse(address)

	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return errors.New("is not the address of an HTTP server")
	case u.User != nil:
		return errors.New("contains credentials, which belong into username and password")
	case u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return errors.New("has a query or fragment")
	}

	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return errors.New("has a port that is not between 1 and 65535")
		}
	}

	return nil
}

// CheckWebhook reports what is wrong with the address of a webhook; nil if nothing is.
// The error never quotes the address, which can hold a token.
func CheckWebhook(address string) error {
	u, err := url.Parse(address)

	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return errors.New("is not an http or https address")
	case u.Fragment != "":
		return errors.New("has a fragment")
	default:
		return nil
	}
}

// SameServer reports whether two addresses are spellings of one: they differ at
// most in the case of the host, a default port or a slash at the end. Whoever
// copies or deletes has to take two backends on one server for one place.
func SameServer(a, b string) bool { return serverOf(a) == serverOf(b) }

// serverOf brings the spellings of one server's address together.
func serverOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}

	host := strings.ToLower(u.Host)

	switch {
	case u.Port() == "" && u.Scheme == "http":
		host = strings.TrimSuffix(host, ":") + ":80"
	case u.Port() == "" && u.Scheme == "https":
		host = strings.TrimSuffix(host, ":") + ":443"
	}

	return u.Scheme + "://" + host + strings.TrimRight(u.Path, "/")
}
