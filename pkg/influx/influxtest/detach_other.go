//go:build !unix

package influxtest

import "syscall"

func detached() *syscall.SysProcAttr { return nil }
