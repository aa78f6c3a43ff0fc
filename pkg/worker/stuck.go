package worker

import (
	"bytes"
	"fmt"
	"runtime/pprof"
)

// maxDump bounds what is logged of the goroutines of a task that is stuck.
const maxDump = 64 << 10

// labels mark the goroutines that work for a task, and those that they start.
func labels(op, task string) pprof.LabelSet { return pprof.Labels("operation", op, "task", task) }

// goroutines tells where the goroutines of a task are.
func goroutines(op, task string) string {
	var all bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&all, 1); err != nil {
		return err.Error()
	}
	var own []byte
	marks := [][]byte{fmt.Appendf(nil, "%q:%q", "operation", op), fmt.Appendf(nil, "%q:%q", "task", task)}
	for one := range bytes.SplitSeq(all.Bytes(), []byte("\n\n")) {
		if bytes.Contains(one, marks[0]) && bytes.Contains(one, marks[1]) {
			own = append(append(own, one...), '\n')
		}
	}
	if over := len(own) - maxDump; over > 0 {
		own = fmt.Appendf(own[:maxDump:maxDump], "… (%d bytes left out)", over)
	}
	return string(own)
}
