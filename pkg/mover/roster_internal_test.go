package mover

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Writes are compressed unless they stay on this host.
func TestOnLoopback(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"http://localhost:8086":             true,
		"http://LOCALHOST.:8086":            true,
		"https://a.localhost":               true,
		"http://127.0.0.1:8086":             true,
		"http://127.9.9.9":                  true,
		"http://[::1]:8086/path":            true,
		"http://[::ffff:127.0.0.1]:8086":    true,
		"http://10.0.0.1:8086":              false,
		"http://[fe80::1%25eth0]:8086":      false,
		"http://0.0.0.0:8086":               false,
		"http://influx-1.example.com":       false,
		"http://localhost.example.com:8086": false,
		"http://127.0.0.1.example.com":      false,
		"://":                               false,
		"":                                  false,
	} {
		require.Equal(t, want, onLoopback(address), address)
	}
}
