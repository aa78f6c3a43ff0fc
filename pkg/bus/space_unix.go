//go:build linux || darwin || freebsd

package bus

import "syscall"

// diskSpace returns how many bytes of the disk below a directory are free for this
// process, and how many there are.
func diskSpace(dir string) (free, size int64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	block := int64(s.Bsize) //nolint:unconvert // of another type on other systems
	return int64(s.Bavail) * block, int64(s.Blocks) * block, nil
}
