package bus

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
)

// ErrStoreInUse says that another server has the store directory open. Two
// servers on one directory would both acknowledge messages and lose some.
var ErrStoreInUse = errors.New("store directory is in use")

// lockFile is an advisory lock that the kernel gives up when the process ends,
// however it ends. The file stays; what counts is the lock on it.
type lockFile struct {
	file *os.File
}

// takeLock locks path and writes the process id into it. Held by another
// process or elsewhere in this one, it returns ErrStoreInUse with that id.
func takeLock(path string) (*lockFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening lock file: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer func() { _ = f.Close() }() // it was only to be read
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		holder := "another process"
		if content, err := io.ReadAll(io.LimitReader(f, 32)); err == nil {
			if pid, err := strconv.Atoi(string(bytes.TrimSpace(content))); err == nil {
				holder = fmt.Sprintf("process %d", pid)
			}
		}
		return nil, fmt.Errorf("%w: %s holds %s", ErrStoreInUse, holder, path)
	}
	l := &lockFile{file: f}
	if err := l.write(); err != nil {
		return nil, errors.Join(fmt.Errorf("writing lock file: %w", err), l.release())
	}
	return l, nil
}

func (l *lockFile) write() error {
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, err := l.file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// release gives up the lock by closing the file.
func (l *lockFile) release() error {
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("releasing lock file: %w", err)
	}
	return nil
}
