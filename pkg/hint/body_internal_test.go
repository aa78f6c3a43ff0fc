package hint

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzBody goes past the checksums, as damage that has them right would.
func FuzzBody(f *testing.F) {
	body, err := appendBody(nil, &Frame{Epoch: 1, Circles: []int{-1, 3}, Database: "d", Points: 1, Lines: []byte("m v=1 1\n")})
	require.NoError(f, err)
	f.Add(body)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := decodeBody(body)
		if err != nil {
			require.ErrorIs(t, err, ErrDamaged)
			return
		}
		again, err := appendBody(nil, got)
		require.NoError(t, err)
		same, err := decodeBody(again)
		require.NoError(t, err)
		require.Equal(t, got, same)
	})
}
