//go:build race

package mover

const raceEnabled = true
