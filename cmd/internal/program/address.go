package program

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// ListenMistake says what is wrong with an address to listen on; "" if nothing
// is.
func ListenMistake(address string) string {
	const remedy = "; write host:port, or :port for every address of the host"
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Sprintf("%q is not an address to listen on%s", address, remedy)
	}
	if n, err := strconv.Atoi(port); port == "" || err == nil && (n < 0 || n > 65535) {
		return fmt.Sprintf("%q has no port between 0 and 65535%s", address, remedy)
	}
	return ""
}

// NATSMistake says what is wrong with a list of NATS URLs; "" if nothing is. It
// quotes none of them: they may hold credentials.
func NATSMistake(list string) string {
	for i, entry := range strings.Split(list, ",") {
		u, err := url.Parse(natsEntry(entry))
		if err != nil || u.Hostname() == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return fmt.Sprintf("entry %d is not the address of a NATS server; write nats://host:port, several separated by commas", i+1)
		}
	}
	return ""
}
