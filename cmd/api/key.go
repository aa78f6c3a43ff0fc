package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ringmaster/cmd/internal/program"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/secrets"
)

// keyFileMistake says what is wrong with a key file; "" if nothing is. One that is
// not there will be made, if its directory is there or is made for the data.
func keyFileMistake(path, data string) string {
	_, err := secrets.Open(path)
	switch {
	case err == nil:
		return ""
	case !errors.Is(err, secrets.ErrNoKey):
		return err.Error()
	}
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && !holds(dir, data) {
		return fmt.Sprintf("%s cannot be made: there is no directory %s", path, dir)
	}
	return ""
}

// holds reports whether dir is path or one of the directories above it.
func holds(dir, path string) bool {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false
	}
	if path, err = filepath.Abs(path); err != nil {
		return false
	}
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// openKey opens the key file. Where there is none it is made, but not for a cluster
// that has a key already: what that has sealed could not be opened, and operations
// would wait for credentials for ever.
func (s *system) openKey(ctx context.Context) (*secrets.Keyring, error) {
	records, err := ledger.New(ctx, s.bus, ledger.Options{Logger: s.logger})
	if err != nil {
		return nil, err
	}
	path, made := s.options.keyFile, false
	keys, err := secrets.Open(path)
	if errors.Is(err, secrets.ErrNoKey) {
		if err := records.VerifyKey(ctx, keys); err != nil {
			return nil, s.refuseKey(err, fmt.Sprintf("there is no key file %s, and this cluster's records were sealed with the key of another", path))
		}
		keys, err = secrets.Create(path)
		made = err == nil
		if errors.Is(err, fs.ErrExist) { // another process was first
			keys, err = secrets.Open(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("opening the key file %s: %w", path, err)
	}
	if err := records.CheckKey(ctx, keys); err != nil {
		problem := fmt.Sprintf("the key file %s is not the one that this cluster's records were sealed with", path)
		// Another process has given the cluster its key meanwhile: nothing was
		// sealed with the one made here.
		if made && errors.Is(err, ledger.ErrOtherKey) {
			if err := os.Remove(path); err != nil {
				problem += fmt.Sprintf(" (it was made just now and could not be removed: %v)", err)
			}
		}
		return nil, s.refuseKey(err, problem)
	}
	if made {
		s.logger.InfoContext(ctx, "key file made; workers on other hosts need a copy", "file", path)
	}
	return keys, nil
}

// refuseKey makes a usage error of ledger.ErrOtherKey.
func (s *system) refuseKey(err error, problem string) error {
	if !errors.Is(err, ledger.ErrOtherKey) {
		return fmt.Errorf("checking the key: %w", err)
	}
	return &program.UsageError{Mistakes: []string{fmt.Sprintf("%s; give the right -key-file (the default is %s)",
		problem, filepath.Join(s.options.data, keyFileName))}}
}
