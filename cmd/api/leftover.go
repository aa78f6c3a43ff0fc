package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// leftovers says what an influx-proxy has left in its data directories: points
// that it acknowledged and a backend has not got. They lie in BACKEND.dat, as
// blocks one after another, and BACKEND.rec holds how far they were delivered, a
// big-endian int64. Nothing is opened but the latter, and nothing is changed.
func leftovers(dirs ...string) []string {
	var found []string
	for i, dir := range dirs {
		dir = filepath.Clean(dir)
		if slices.ContainsFunc(dirs[:i], func(d string) bool { return filepath.Clean(d) == dir }) {
			continue
		}
		files, err := os.ReadDir(dir)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				found = append(found, fmt.Sprintf("whether influx-proxy has left writes behind cannot be seen: %v", err))
			}
			continue
		}
		for _, f := range files {
			if backend, ok := strings.CutSuffix(f.Name(), ".dat"); ok && f.Type().IsRegular() {
				if left := leftover(dir, backend); left != "" {
					found = append(found, left)
				}
			}
		}
	}
	return found
}

// leftover says what has not been delivered to a backend; "" if nothing is left.
func leftover(dir, backend string) string {
	path := filepath.Join(dir, backend+".dat")
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Sprintf("what influx-proxy has left in %s cannot be seen: %v", path, err)
	}
	left := info.Size() - delivered(filepath.Join(dir, backend+".rec"), info.Size())
	if left == 0 {
		return ""
	}
	return fmt.Sprintf("influx-proxy has acknowledged %d bytes of writes that backend %q has not got; they are in %s, which is left alone here: "+
		"start influx-proxy with its own configuration and let it deliver them, until its /health shows no backlog, "+
		"or, if another circle has them, run /resync and then move the file away", left, backend, path)
}

// delivered reads how much of a file of that size is done with. What cannot be
// read or cannot be true counts as nothing.
func delivered(path string, size int64) int64 {
	file, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer func() { _ = file.Close() }() // it was only read
	var n int64
	if err := binary.Read(file, binary.BigEndian, &n); err != nil || n < 0 || n > size {
		return 0
	}
	return n
}
