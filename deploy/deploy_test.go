// Package deploy_test checks the examples in this directory as far as that goes
// without their programs; the configuration of NATS is run in pkg/bus, which
// alone knows NATS.
package deploy_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"ringmaster/pkg/topology"
)

func TestExampleConfigurationIsValid(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("proxy.json")
	require.NoError(t, err)
	c, err := topology.Parse("proxy.json", raw)
	require.NoError(t, err)
	require.Empty(t, c.Warnings)
	require.Len(t, c.Circles, 2)
	for _, circle := range c.Circles {
		require.Len(t, circle.Backends, 2)
	}
}

// A variable that no flag has would be ignored without a word.
func TestVariablesAreFlags(t *testing.T) {
	t.Parallel()
	known := map[string][]string{"api": variables(t, "api"), "worker": variables(t, "worker")}
	variable := regexp.MustCompile(`^Environment=(RINGMASTER_[A-Z_]+)=`)
	for program, names := range known {
		raw, err := os.ReadFile("systemd/ringmaster-" + program + ".service")
		require.NoError(t, err)
		for line := range strings.Lines(string(raw)) {
			if m := variable.FindStringSubmatch(line); m != nil {
				require.Contains(t, names, m[1], "ringmaster-%s.service", program)
			}
		}
	}
	for program, service := range readCompose(t).Services {
		for name := range service.Environment {
			if names, ours := known[program]; ours && strings.HasPrefix(name, "RINGMASTER_") {
				require.Contains(t, names, name, "service %s", program)
			}
		}
	}
}

// variables are those that a program reads its flags from.
func variables(t *testing.T, program string) (names []string) {
	t.Helper()
	flag := regexp.MustCompile(`fs\.\w*Var\(&[\w.]+, "([a-z-]+)"`)
	files, err := filepath.Glob("../cmd/" + program + "/*.go")
	require.NoError(t, err)
	for _, file := range files {
		raw, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range flag.FindAllStringSubmatch(string(raw), -1) {
			names = append(names, "RINGMASTER_"+strings.ToUpper(strings.ReplaceAll(m[1], "-", "_")))
		}
	}
	require.Contains(t, names, "RINGMASTER_NATS")
	return names
}

// compose is what the tests look at.
type compose struct {
	Services map[string]struct {
		Environment map[string]string
		Volumes     []string
		DependsOn   []string `yaml:"depends_on"`
	}
	Volumes map[string]any
}

func readCompose(t *testing.T) compose {
	t.Helper()
	raw, err := os.ReadFile("compose/compose.yaml")
	require.NoError(t, err)
	var c compose
	require.NoError(t, yaml.Unmarshal(raw, &c))
	return c
}

// What the services mount and wait for is there, and every backend of the
// example configuration runs.
func TestComposeHoldsTogether(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	for name, s := range c.Services {
		for _, v := range s.Volumes {
			from, _, ok := strings.Cut(v, ":")
			require.True(t, ok, "%s: %s", name, v)
			switch {
			case strings.HasPrefix(from, "./tls/"): // made by certificates.sh
			case strings.HasPrefix(from, "."):
				require.FileExists(t, filepath.Join("compose", from), "service %s", name)
			default:
				require.Contains(t, c.Volumes, from, "service %s", name)
			}
		}
		for _, other := range s.DependsOn {
			require.Contains(t, c.Services, other, "service %s", name)
		}
	}
	raw, err := os.ReadFile("proxy.json")
	require.NoError(t, err)
	config, err := topology.Parse("proxy.json", raw)
	require.NoError(t, err)
	for _, circle := range config.Circles {
		for _, b := range circle.Backends {
			require.Contains(t, c.Services, b.Name)
			require.Equal(t, "http://"+b.Name+":8086", b.URL)
		}
	}
	nodes := slices.DeleteFunc(slices.Collect(maps.Keys(c.Services)), func(s string) bool { return !strings.HasPrefix(s, "nats-") })
	require.Len(t, nodes, 3)
}
