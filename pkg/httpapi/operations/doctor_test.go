package operations_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/doctor"
	"ringmaster/pkg/httpapi/httpapitest"
)

func TestTheDoctorsGravestFindingIsTheStatus(t *testing.T) {
	b := httpapitest.NewBackend()
	c := serve(t, b)
	for _, step := range []struct{ found, want doctor.Status }{
		{doctor.OK, doctor.OK}, {doctor.Warn, doctor.Warn}, {doctor.Fail, doctor.Fail}, {doctor.Warn, doctor.Fail},
	} {
		b.Findings = append(b.Findings, doctor.Finding{Name: "clock", Status: step.found, Detail: "d", Remedy: "r"})
		w := c.Get("/v1/doctor")
		require.Equal(t, 200, w.Status, "what is bad is no error of the call")
		got := read[struct {
			Status doctor.Status
			Checks []doctor.Finding
		}](t, w)
		require.Equal(t, step.want, got.Status)
		require.Equal(t, b.Findings, got.Checks)
	}
	require.Equal(t, 400, c.Get("/v1/doctor?x=1").Status)
}
