package lineproto_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/lineproto"
)

func TestCompareTags(t *testing.T) {
	t.Parallel()
	tags := func(kv ...string) (out []lineproto.Tag) {
		for i := 0; i < len(kv); i += 2 {
			out = append(out, lineproto.Tag{Key: kv[i], Value: kv[i+1]})
		}
		return out
	}
	inOrder := [][]lineproto.Tag{
		tags(), tags("c", "1"), tags("b", "1"), tags("b", "1", "c", "1"), tags("b", "1", "d", "0"),
		tags("b", "10"), tags("b", "2"), tags("a", "1"), tags("a", "1", "b", "1"), tags("a", "1 "), tags("a", "1!"), tags("a", "11"), tags("a", "é"),
	}
	// d before c here: between two series, d decides only when c is equal.
	inOrder[3], inOrder[4] = inOrder[4], inOrder[3]
	for i := range inOrder {
		for j := range inOrder {
			got := lineproto.CompareTags(inOrder[i], inOrder[j])
			switch {
			case i < j:
				require.Negative(t, got, "%v %v", inOrder[i], inOrder[j])
			case i > j:
				require.Positive(t, got, "%v %v", inOrder[i], inOrder[j])
			default:
				require.Zero(t, got)
			}
		}
	}
}
