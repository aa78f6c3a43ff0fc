//go:build !race

package replay_test

// raceEnabled says that this test was built with the race detector.
const raceEnabled = false
