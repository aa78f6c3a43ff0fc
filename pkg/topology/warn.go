package topology

import (
	"crypto/tls"
	"fmt"
	"slices"

	"ringmaster/pkg/ring"
)

// warn collects what a correct configuration is better without.
func (c *Config) warn() {
	names, urls := map[string]int{}, map[string]string{}

	for i := range c.Circles {
		circle := &c.Circles[i]
		path := fmt.Sprintf("circles[%d]", circle.ID)

		c.warnCollisions(path, circle)

		if other, taken := names[circle.Name]; taken && circle.Name != "" {
			c.warning(path+".name", fmt.Sprintf("is %q, the name of circles[%d], too", circle.Name, other), "give each circle a name of its own")
		} else {
			names[circle.Name] = circle.ID
		}

		writeOnly := 0

		for j := range circle.Backends {
			b := &circle.Backends[j]
			at := fmt.Sprintf("%s.backends[%d]", path, j)

			if b.WriteOnly {
				writeOnly++
			}

			if other, taken := urls[serverOf(b.URL)]; taken {
				c.warning(at+".url", "is the server of "+other+", too",
					"use each server once: two backends on one server are no replicas of each other and count its data twice")
			} else {
				urls[serverOf(b.URL)] = at
			}
		}

		if writeOnly == len(circle.Backends) {
			c.warning(path, "has only backends that are write_only", "no query can be answered from this circle")
		}
	}

	c.warnTLS()

	seen := map[string]bool{}
	for i, name := range c.Databases {
		if seen[name] {
			c.warning(fmt.Sprintf("db_list[%d]", i), fmt.Sprintf("is %q once more", name), "remove it")
		}

		seen[name] = true
	}
}

// warnTLS names what a listener that uses TLS had better not speak.
func (c *Config) warnTLS() {
	if !c.HTTPSEnabled {
		return
	}

	if c.TLS.MinVersion != 0 && c.TLS.MinVersion < tls.VersionTLS12 || c.TLS.MaxVersion != 0 && c.TLS.MaxVersion < tls.VersionTLS12 {
		c.warning("tls", "allows versions before 1.2, which are no longer safe", "leave min_version out: 1.2 is the default")
	}

	for _, s := range tls.InsecureCipherSuites() {
		if slices.Contains(c.TLS.Ciphers, s.ID) {
			c.warning("tls.ciphers", "has "+s.Name+", which is no longer safe", "remove it")
		}
	}
}

func (c *Config) warning(path, problem, remedy string) {
	c.Warnings = append(c.Warnings, Mistake{Path: path, Problem: problem, Remedy: remedy})
}

func (c *Config) warnCollisions(path string, circle *Circle) {
	hashKey, err := ring.ParseHashKey(c.HashKey)
	if err != nil {
		return // refused already
	}

	lost := ring.New(ringKeys(hashKey, circle.Backends), c.VNodes).Collisions()
	if lost == 0 {
		return
	}

	c.warning(path+".backends",
		fmt.Sprintf("%d points of %d backends coincide on the ring under hash_key %s, so the order of the backends places data", lost, len(circle.Backends), c.HashKey),
		"keep the order as it is; a new cluster should use exi (on one that holds data, another hash_key moves most of it)")
}
