package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// adminToken reads the admin's bearer token from the data directory, or makes
// it at the first start. Nobody but the owner can read the file.
func adminToken(dir string) (string, error) {
	path := filepath.Join(dir, "admin-token")
	raw, err := os.ReadFile(path)
	if err == nil {
		token := strings.TrimSpace(string(raw))
		if token == "" {
			return "", fmt.Errorf("the admin token in %s is empty; remove the file to have a new one made", path)
		}
		return token, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the admin token: %w", err)
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return "", fmt.Errorf("making the admin token: %w", err)
	}
	token := base64.RawURLEncoding.EncodeToString(secret)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return adminToken(dir) // another process has just made it
	}
	if err != nil {
		return "", fmt.Errorf("making the admin token: %w", err)
	}
	_, err = file.WriteString(token + "\n")
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return "", fmt.Errorf("making the admin token: %w", errors.Join(err, os.Remove(path)))
	}
	return token, nil
}
