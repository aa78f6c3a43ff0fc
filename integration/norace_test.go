//go:build !race

package integration_test

// raceEnabled says that this test was built with the race detector; so are then
// the programs it starts.
const raceEnabled = false
