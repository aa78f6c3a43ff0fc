package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// adminToken reads the admin's bearer token from the data directory, or makes
// it at the first start. Nobody but the owner can read the file. Of several
// processes that start at once, one makes the token and all use that one.
func adminToken(dir string) (string, error) {
	path := filepath.Join(dir, "admin-token")
	token, err := readToken(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	token = rand.Text() + rand.Text() // 260 bits
	switch err := publishToken(path, token); {
	case errors.Is(err, fs.ErrExist):
		return readToken(path)
	case err != nil:
		return "", fmt.Errorf("making the admin token: %w", err)
	}
	return token, nil
}

func readToken(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("reading the admin token: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", fmt.Errorf("others can read the admin token in %s (mode %04o): run chmod 600 on it, or remove it to have a new one made", path, mode)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the admin token: %w", err)
	}
	token := strings.TrimSpace(string(raw))
	if token == "" {
		return "", fmt.Errorf("the admin token in %s is empty; remove the file to have a new one made", path)
	}
	return token, nil
}

// publishToken writes the file beside path and links it there, so that it
// appears whole or not at all, and never in place of another.
func publishToken(path, token string) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(file.Name())) }()
	_, err = file.WriteString(token + "\n")
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Link(file.Name(), path)
}
