package influxtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// module is the module whose tree holds the nested module with the programs,
// source the directory of that nested module.
const (
	module = "ringmaster"
	source = "integration/influxd"
)

// Build returns the path of a program that runs the real InfluxDB server, built
// once from integration/influxd into the user's cache directory: the first
// build takes a minute, later calls nothing. It must be called with a working
// directory inside the source tree. Several processes may call it at once.
func Build(ctx context.Context) (binary string, err error) { return build(ctx, "influxd", ".") }

// BuildParser is [Build] for the program that shows what InfluxDB's parser reads
// from line protocol; integration/influxd/lineparse says how to talk to it.
func BuildParser(ctx context.Context) (binary string, err error) {
	return build(ctx, "lineparse", "./lineparse")
}

func build(ctx context.Context, name, pkg string) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", fmt.Errorf("looking for the source of %s: %w", name, err)
	}
	dir := filepath.Join(root, filepath.FromSlash(source))
	sum, err := hashTree(dir)
	if err != nil {
		return "", fmt.Errorf("hashing the source of %s: %w", name, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, module, "influxd-"+sum)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("making the cache of %s: %w", name, err)
	}
	binary := filepath.Join(cache, name)
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	if exists(binary) {
		return binary, nil
	}
	unlock, err := lockFile(ctx, binary+".lock")
	if err != nil {
		return "", fmt.Errorf("waiting for another build of %s: %w", name, err)
	}
	defer unlock()
	if exists(binary) {
		return binary, nil
	}
	return binary, compile(ctx, dir, pkg, binary)
}

// compile builds beside the goal and renames, so that what is there is whole.
func compile(ctx context.Context, dir, pkg, binary string) error {
	fresh := binary + ".new"
	defer os.Remove(fresh)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-mod=readonly", "-o", fresh, pkg)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s in %s: %w: %s", pkg, dir, err, bytes.TrimSpace(out))
	}
	if err := os.Rename(fresh, binary); err != nil {
		return fmt.Errorf("keeping %s: %w", binary, err)
	}
	return nil
}

func exists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// moduleRoot walks up from the working directory to the tree's own go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && declares(string(text), module) {
			return dir, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no go.mod of module %s above the working directory", module)
		}
		dir = up
	}
}

func declares(gomod, module string) bool {
	for line := range strings.Lines(gomod) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "module" {
			return f[1] == module
		}
	}
	return false
}

// hashTree sums the names and contents of all files below dir, and what else
// decides the result of a build.
func hashTree(dir string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := root.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		content := sha256.New()
		if _, err := io.Copy(content, f); err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %x\n", path, content.Sum(nil))
		return nil
	})
	return hex.EncodeToString(h.Sum(nil)[:8]), err
}
