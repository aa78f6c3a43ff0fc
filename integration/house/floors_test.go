// Package house_test holds the house to its rules: which room may import which,
// and what code in a room may not do. ARCHITECTURE.md says why; a rule is
// changed here and there together.
package house_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "ringmaster"

// floor is a storey of the house. Two more kinds of room are outside it: helpers
// serve tests alone, and programs stand beside the house.
type floor int

const (
	helper  floor = iota // imported by tests and by integration only
	pure                 // 1: no input, no output, no clock of its own
	outside              // 2: NATS, InfluxDB, records, keys
	handler              // 3: what a task does
	engine               // 4: controller, workers, projections
	dialect              // 5: HTTP
	wiring               // 6: programs
	proof                // tests, demonstration and measurements of the whole
)

// room is a package and the floor it is on.
type room struct {
	path  string
	floor floor
}

// rooms is the house in order: a room imports only rooms that stand before it.
func rooms() []room {
	return []room{
		{"pkg/operation", pure},
		{"events", pure},
		{"events/internal/gen", wiring},
		{"pkg/ring", pure},
		{"pkg/lineproto", pure},
		{"pkg/prom", pure},
		{"pkg/topology", pure},
		{"pkg/serving", pure},
		{"pkg/hint", pure},
		{"pkg/segment", pure},
		{"pkg/result", pure},
		{"pkg/flux", pure},
		{"pkg/statement", pure},

		{"pkg/bus", outside},
		{"pkg/bus/bustest", helper},
		{"pkg/secrets", outside},
		{"pkg/ledger", outside},
		{"pkg/notify", outside},
		{"pkg/influx", outside},
		{"pkg/influx/influxtest", helper},

		{"pkg/patience", handler},
		{"pkg/pace", handler},
		{"pkg/planner", handler},
		{"pkg/mover", handler},

		{"pkg/gateway/session", engine},
		{"pkg/gateway/replay", engine},
		{"pkg/gateway/ingest", engine},
		{"pkg/controller", engine},
		{"pkg/worker", engine},
		{"pkg/progress", engine},
		{"pkg/health", engine},
		{"pkg/gateway/query", engine},
		{"pkg/doctor", engine},

		{"pkg/httpapi", dialect},
		{"pkg/httpapi/operations", dialect},
		{"pkg/httpapi/influxproxy", dialect},
		{"pkg/httpapi/httpapitest", helper},

		{"cmd/ringctl", wiring},
		{"cmd/internal/program", wiring},
		{"cmd/worker", wiring},
		{"cmd/api", wiring},

		{"deploy", proof},
		{"integration/house", proof},
		{"integration/harness", proof},
		{"integration/dataset", proof},
		{"integration/traffic", proof},
		{"integration/demo", proof},
		{"integration/bench", proof},
		{"integration/chaos", proof},
		{"integration", proof},
	}
}

// home is a module that only one room, and what lies below it, may import: the
// rest of the house sees it through that room. Tests are no exception.
type home struct{ module, room, reason string }

func homes() []home {
	return []home{
		{"github.com/gin-gonic/", "pkg/httpapi", "HTTP is spoken on floor 5"},
		{"github.com/nats-io/", "pkg/bus", "everything else uses buckets, queues, logs and leases"},
	}
}

// client is a room outside the engine: of the house it may import these rooms and
// no other.
type client struct {
	room   string
	may    []string
	reason string
}

func clients() []client {
	return []client{
		{"cmd/ringctl", []string{"pkg/operation", "pkg/topology"}, "it is a client of the HTTP API"},
	}
}

// pureImports is all that a pure room may import from outside the house. It
// lists what may, not what may not: what is new is looked at once.
func pureImports() map[string]bool {
	allowed := map[string]bool{}
	for _, p := range []string{
		"bytes", "cmp", "embed", "encoding/base64", "encoding/binary", "encoding/hex", "encoding/json", "errors", "fmt",
		"bufio", "hash", "hash/crc32", "hash/fnv", "io", "iter", "maps", "math", "math/bits", "path", "reflect", "regexp", "slices", "sort", "strconv",
		"strings", "time", "unicode", "unicode/utf8", "unsafe",
		"crypto/aes", "crypto/cipher", "crypto/sha256",
		"net/url",
		"encoding/csv",
		"github.com/tinylib/msgp/msgp",
		// Only their pure parts: see pureNames.
		"crypto/tls", "log/slog", "mime", "net",
		// Parsers of bytes.
		"github.com/knadh/koanf/parsers/json", "github.com/knadh/koanf/parsers/toml/v2",
		"github.com/knadh/koanf/parsers/yaml", "github.com/pelletier/go-toml/v2",
		// Compression of bytes in memory.
		"github.com/klauspost/compress/s2", "github.com/klauspost/compress/snappy", "github.com/klauspost/compress/zstd",
		// InfluxDB's own parsers, of queries and of lines.
		"github.com/influxdata/influxql",
		"github.com/influxdata/influxdb1-client/models",
	} {
		allowed[p] = true
	}
	return allowed
}

// plan answers where a package of the module stands.
type plan struct {
	floors map[string]floor
	order  map[string]int
}

func newPlan(rooms []room) plan {
	p := plan{floors: map[string]floor{}, order: map[string]int{}}
	for i, r := range rooms {
		p.floors[r.path], p.order[r.path] = r.floor, i
	}
	return p
}

// within reports whether a package is a room or lies below it.
func within(pkg, room string) bool {
	return pkg == room || strings.HasPrefix(pkg, room+"/")
}

// inside cuts the module's path off an import.
func inside(imported string) (pkg string, ok bool) {
	return strings.CutPrefix(imported, module+"/")
}

// known says what to do about a package that has no place in the house.
func (p plan) known(pkg string) error {
	if _, ok := p.floors[pkg]; !ok {
		return fmt.Errorf("%s is no room of the house: add it to rooms in floors_test.go and to ARCHITECTURE.md, on the floor where it belongs", pkg)
	}
	return nil
}

// judge says why a room may not import a package; nil if it may. test says that
// the import stands in a test, which may use any room to set its scene.
func (p plan) judge(importer, imported string, test bool) error {
	if err := p.known(importer); err != nil {
		return err
	}
	from := p.floors[importer]
	for _, h := range homes() {
		if strings.HasPrefix(imported, h.module) && !within(importer, h.room) {
			return fmt.Errorf("%s imports %s, which only %s may: %s", importer, imported, h.room, h.reason)
		}
	}
	if test {
		return nil
	}
	pkg, ours := inside(imported)
	if !ours {
		if from == pure && !pureImports()[imported] {
			return fmt.Errorf("%s is a pure room and imports %s: add it to pureImports only if it does no input or output", importer, imported)
		}
		return nil
	}
	if err := p.known(pkg); err != nil {
		return fmt.Errorf("%s imports what has no place: %w", importer, err)
	}
	for _, c := range clients() {
		if importer == c.room && !slices.Contains(c.may, pkg) {
			return fmt.Errorf("%s imports %s, but %s", importer, pkg, c.reason)
		}
	}
	to := p.floors[pkg]
	switch {
	case to == helper && from != helper && from != proof:
		return fmt.Errorf("%s imports %s, which is for tests", importer, pkg)
	case to == proof && from != proof:
		return fmt.Errorf("%s imports %s, which stands outside the house", importer, pkg)
	case p.order[pkg] >= p.order[importer]:
		return fmt.Errorf("%s imports %s, which does not stand before it", importer, pkg)
	default:
		return nil
	}
}

// listed is what the Go tool tells about a package.
type listed struct {
	ImportPath, Dir                    string
	Imports, TestImports, XTestImports []string
	Deps                               []string // also those of what it imports
	IgnoredGoFiles                     []string // for other systems
	Error                              *struct{ Err string }
}

// list asks the Go tool for the module's packages.
func list(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e",
		"-json=ImportPath,Dir,Imports,TestImports,XTestImports,Deps,IgnoredGoFiles,Error", "./...")
	cmd.Dir = root(t)
	raw, err := cmd.Output()
	require.NoError(t, err)
	packages := map[string]listed{}
	for d := json.NewDecoder(bytes.NewReader(raw)); ; {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		require.NoError(t, err)
		packages[p.ImportPath] = p
	}
}

// root is the directory of the module.
func root(t *testing.T) string {
	t.Helper()
	raw, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(raw))
}

// TestFloors reads what every package of the module imports.
func TestFloors(t *testing.T) {
	t.Parallel()
	packages := list(t)
	t.Run("no room imports upward", func(t *testing.T) {
		t.Parallel()
		testImports(t, packages)
	})
	t.Run("pure rooms reach no network", func(t *testing.T) {
		t.Parallel()
		testPureRooms(t, packages)
	})
	t.Run("the plan is that of the tree", func(t *testing.T) {
		t.Parallel()
		testPlan(t, packages)
	})
}

func testImports(t *testing.T, packages map[string]listed) {
	p := newPlan(rooms())
	seen := 0
	for _, pkg := range packages {
		name, ours := inside(pkg.ImportPath)
		if !ours {
			continue
		}
		seen++
		if pkg.Error != nil {
			t.Errorf("%s: %s", name, pkg.Error.Err)
		}
		if err := p.known(name); err != nil {
			t.Error(err)
			continue
		}
		for _, imported := range slices.Concat(pkg.Imports, ignoredImports(t, pkg, false)) {
			if err := p.judge(name, imported, false); err != nil {
				t.Error(err)
			}
		}
		for _, imported := range slices.Concat(pkg.TestImports, pkg.XTestImports, ignoredImports(t, pkg, true)) {
			if err := p.judge(name, imported, true); err != nil {
				t.Error(err)
			}
		}
	}
	require.Greater(t, seen, 15, "the Go tool lists the module")
}

// ignoredImports are those of files for other systems, which the Go tool leaves
// out.
func ignoredImports(t *testing.T, pkg listed, test bool) (imports []string) {
	t.Helper()
	for _, name := range pkg.IgnoredGoFiles {
		if strings.HasSuffix(name, "_test.go") != test {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(pkg.Dir, name), nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, i := range file.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			require.NoError(t, err)
			imports = append(imports, imported)
		}
	}
	return imports
}

// What a pure room imports may not bring in by a back door what it must not
// import itself.
func testPureRooms(t *testing.T, packages map[string]listed) {
	for _, r := range rooms() {
		if r.floor != pure {
			continue
		}
		deps := packages[path.Join(module, r.path)].Deps
		require.NotEmpty(t, deps, r.path)
		for _, dep := range deps {
			for _, wrong := range []string{"net/http", "os/exec", "database/sql", "github.com/nats-io", "github.com/gin-gonic"} {
				if within(dep, wrong) {
					t.Errorf("%s depends on %s", r.path, dep)
				}
			}
		}
	}
}

// The plan names no room twice and none that is gone.
func testPlan(t *testing.T, packages map[string]listed) {
	seen := map[string]bool{}
	for _, r := range rooms() {
		require.False(t, seen[r.path], "%s stands twice", r.path)
		seen[r.path] = true
		require.Contains(t, packages, path.Join(module, r.path), "%s is gone: take it out of rooms", r.path)
	}
}

// The judge is judged: each of these imports would break a rule.
func TestForbiddenImportsAreRefused(t *testing.T) {
	t.Parallel()
	p := newPlan(rooms())
	for _, c := range []struct {
		importer, imported string
		test               bool
		says               string
	}{
		{"pkg/operation", "ringmaster/pkg/ledger", false, "does not stand before it"},
		{"pkg/operation", "ringmaster/events", false, "does not stand before it"},
		{"pkg/ring", "ringmaster/pkg/topology", false, "does not stand before it"},
		{"pkg/influx", "ringmaster/pkg/mover", false, "does not stand before it"},
		{"pkg/mover", "ringmaster/pkg/controller", false, "does not stand before it"},
		{"pkg/worker", "ringmaster/pkg/progress", false, "does not stand before it"},
		{"pkg/progress", "ringmaster/pkg/httpapi", false, "does not stand before it"},
		{"pkg/httpapi", "ringmaster/cmd/internal/program", false, "does not stand before it"},
		{"pkg/httpapi/operations", "ringmaster/pkg/httpapi/influxproxy", false, "does not stand before it"},
		{"pkg/mover", "ringmaster/pkg/mover", false, "does not stand before it"},
		{"pkg/ledger", "ringmaster/pkg/cellar", false, "no room of the house"},
		{"pkg/cellar", "fmt", false, "add it to rooms"},
		{"pkg/cellar", "fmt", true, "add it to rooms"},
		{"pkg/worker", "ringmaster/pkg/bus/bustest", false, "is for tests"},
		{"cmd/api", "ringmaster/pkg/influx/influxtest", false, "is for tests"},
		{"cmd/api", "ringmaster/integration/harness", false, "outside the house"},
		{"pkg/bus/bustest", "ringmaster/integration/harness", false, "outside the house"},
		{"pkg/ledger", "github.com/nats-io/nats.go", false, "only pkg/bus may"},
		{"pkg/ledger", "github.com/nats-io/nats.go/jetstream", true, "only pkg/bus may"},
		{"integration", "github.com/nats-io/nats-server/v2/server", true, "only pkg/bus may"},
		{"pkg/busybody", "github.com/nats-io/nats.go", false, "add it to rooms"},
		{"pkg/controller", "github.com/gin-gonic/gin", false, "only pkg/httpapi may"},
		{"pkg/controller", "github.com/gin-gonic/gin/binding", true, "only pkg/httpapi may"},
		{"cmd/api", "github.com/gin-gonic/gin", false, "only pkg/httpapi may"},
		{"cmd/ringctl", "ringmaster/pkg/ledger", false, "client of the HTTP API"},
		{"pkg/operation", "os", false, "pure room"},
		{"pkg/ring", "net/http", false, "pure room"},
		{"events", "database/sql", false, "pure room"},
		{"pkg/lineproto", "github.com/prometheus/client_golang/prometheus", false, "pure room"},
	} {
		require.ErrorContains(t, p.judge(c.importer, c.imported, c.test), c.says, "%s imports %s", c.importer, c.imported)
	}
	for _, c := range []struct {
		importer, imported string
		test               bool
	}{
		{"events", "ringmaster/pkg/operation", false},
		{"pkg/topology", "github.com/knadh/koanf/parsers/yaml", false},
		{"pkg/bus", "github.com/nats-io/nats.go", false},
		{"pkg/bus/bustest", "github.com/nats-io/nats-server/v2/server", false},
		{"pkg/worker", "ringmaster/pkg/bus/bustest", true},
		{"pkg/mover", "ringmaster/pkg/worker", true},
		{"pkg/httpapi/influxproxy", "github.com/gin-gonic/gin", false},
		{"cmd/api", "net/http", false},
		{"integration/bench", "ringmaster/pkg/influx/influxtest", false},
		{"integration", "ringmaster/integration/harness", true},
	} {
		require.NoError(t, p.judge(c.importer, c.imported, c.test), "%s imports %s", c.importer, c.imported)
	}
}
