package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// natsFileName is the file in a data directory by which processes on the same
// host find the embedded server.
const natsFileName = "nats.json"

// NATSFile is the content of DIR/nats.json (mode 0600): how to reach the
// embedded server of the process that owns the data directory.
type NATSFile struct {
	// URL is where the server listens, without credentials.
	URL string `json:"url"`
	// Token is what a client must present. It is a secret.
	Token string `json:"token"`
}

// ReadNATSFile reads the nats.json in dir. The error matches fs.ErrNotExist
// when no embedded server was ever started there.
func ReadNATSFile(dir string) (NATSFile, error) {
	path := filepath.Join(dir, natsFileName)
	content, err := os.ReadFile(path)
	if err != nil {
		return NATSFile{}, fmt.Errorf("reading NATS address: %w", err)
	}
	var f NATSFile
	if err := json.Unmarshal(content, &f); err != nil {
		return NATSFile{}, fmt.Errorf("reading %s: %w", path, err)
	}
	if f.URL == "" || f.Token == "" {
		return NATSFile{}, fmt.Errorf("reading %s: url or token is missing", path)
	}
	return f, nil
}

// write replaces dir/nats.json in one step, so that a reader finds the old
// content or the new, and a crash leaves one of them.
func (f NATSFile) write(dir string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing NATS address: %w", err)
		}
	}()
	content, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, natsFileName+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if rerr := os.Remove(temp.Name()); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	_, err = temp.Write(append(content, '\n'))
	if err = errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), filepath.Join(dir, natsFileName))
}
