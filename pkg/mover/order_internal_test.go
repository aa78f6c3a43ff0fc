package mover

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/lineproto"
)

// TestOrderOfRealSeries: what a real server answers is in the order that the
// comparison relies on, with either index, over several shards, whatever is in
// the tags; and two servers that know different keys agree about the series they
// share.
func TestOrderOfRealSeries(t *testing.T) {
	t.Parallel()
	for _, index := range []string{"inmem", "tsi1"} {
		t.Run(index, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(7, 7))
			keys := []string{"a", "B", "key,with comma", "key=equals", "schlüssel", "z"}
			values := []string{"", "", "1", "10", "1 0", "1,0", "1!", "1-", "2", "a", "A", "aa", "ab", "é", "日本", "~", "=", `"q"`, "\t"}
			var lines [2]strings.Builder
			shared := map[string]bool{}
			for i := range 400 {
				s := lineproto.Series{Measurement: "m"}
				end := i % 3 // 2: both
				for k, key := range keys {
					if end == 0 && k == 1 || end == 1 && k == 4 {
						continue // a key that only the other server knows
					}
					if v := values[random.IntN(len(values))]; v != "" {
						s.Tags = append(s.Tags, lineproto.Tag{Key: key, Value: v})
					}
				}
				sortTags(s.Tags)
				var e lineproto.Encoder
				require.NoError(t, e.SetSeries(&s, []string{"v"}))
				for end, b := range []*strings.Builder{&lines[0], &lines[1]} {
					if i%3 == 1-end {
						continue
					}
					line, err := e.AppendRow(nil, int64(i%5)*1_000_000_000_000_000, []lineproto.Value{lineproto.IntegerValue(int64(i))})
					require.NoError(t, err)
					b.Write(line)
				}
				if i%3 == 2 {
					shared[s.String()] = true
				}
			}
			var cursors [2]cursor
			for i := range cursors {
				s := influxtest.Start(t, influxtest.WithIndex(index))
				s.Exec("CREATE DATABASE d")
				s.WriteLines("d", "", lines[i].String())
				c, err := influx.New(influx.Endpoint{URL: s.URL()}, influx.Options{})
				require.NoError(t, err)
				t.Cleanup(c.Close)
				rows, err := c.Read(t.Context(), []influx.Selection{{
					Database: "d", RetentionPolicy: "autogen", Measurement: "m",
					Window: influx.Window{From: 0, To: 6_000_000_000_000_000},
				}})
				require.NoError(t, err)
				t.Cleanup(func() { rows.Close() })
				cursors[i] = cursor{Stream: rows, name: fmt.Sprintf("server %d", i)}
			}
			met := map[string]bool{}
			for i := range cursors {
				require.NoError(t, cursors[i].next())
			}
			for cursors[0].open && cursors[1].open {
				order := lineproto.CompareTags(cursors[0].tags, cursors[1].tags)
				if order == 0 {
					met[cursors[0].Series().String()] = true
				}
				for i := range cursors {
					if order == 0 || (order < 0) == (i == 0) {
						require.NoError(t, cursors[i].next(), "in order")
					}
				}
			}
			for i := range cursors {
				for cursors[i].open {
					require.NoError(t, cursors[i].next())
				}
			}
			for s := range shared {
				require.True(t, met[s], "%s was not met at both ends", s)
			}
		})
	}
}

func sortTags(tags []lineproto.Tag) {
	for i := range tags {
		for j := i; j > 0 && tags[j].Key < tags[j-1].Key; j-- {
			tags[j], tags[j-1] = tags[j-1], tags[j]
		}
	}
}
