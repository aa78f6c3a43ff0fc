package httpapi_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/httpapi/httpapitest"
)

func TestTheContractIsValidOpenAPI(t *testing.T) {
	contract, err := httpapitest.Load()
	require.NoError(t, err)
	contract.CheckDocument(t)
}
