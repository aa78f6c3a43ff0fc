package operations

import (
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/jsonschema-go/jsonschema"

	"ringmaster/events"
	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/operation"
)

// kindView is one kind of operation.
type kindView struct {
	Kind operation.Kind `json:"kind"`
	// Implemented: this release carries it out; the others are refused with 501.
	Implemented bool `json:"implemented"`
	// Parameters is the JSON Schema (draft 2020-12) of the kind's parameters.
	Parameters *jsonschema.Schema `json:"parameters"`
}

// kindViews makes the schemas from the structs that the kinds are read into.
func kindViews() ([]kindView, error) {
	schemas := map[operation.Kind]func() (*jsonschema.Schema, error){
		operation.KindRebalance:             rebalanceSchema,
		operation.KindRecovery:              recoverySchema,
		operation.KindResync:                resyncSchema,
		operation.KindClear:                 clearSchema,
		operation.KindVerify:                verifySchema,
		operation.KindReindex:               schemaOf[events.ReindexParameters],
		operation.KindDeleteMissingSegments: schemaOf[events.MissingSegmentsParameters],
	}
	var views []kindView
	for _, k := range operation.Kinds() {
		build, ok := schemas[k]
		if !ok {
			return nil, fmt.Errorf("kind %s has no parameter schema", k)
		}
		s, err := build()
		if err != nil {
			return nil, fmt.Errorf("making the parameter schema of %s: %w", k, err)
		}
		s.Schema = "https://json-schema.org/draft/2020-12/schema"
		views = append(views, kindView{Kind: k, Implemented: k.Implemented(), Parameters: s})
	}
	return views, nil
}

func (rm *room) listKinds(c *gin.Context) {
	httpapi.JSON(c, http.StatusOK, newList(rm.kinds, "", rm.Now()))
}

func (rm *room) kind(c *gin.Context) {
	for _, k := range rm.kinds {
		if string(k.Kind) == c.Param("kind") {
			c.Header("X-As-Of", rm.Now().UTC().Format(time.RFC3339))
			httpapi.JSON(c, http.StatusOK, k)
			return
		}
	}
	httpapi.WriteProblem(c.Writer, httpapi.Problem{
		Status: http.StatusNotFound, Code: "no_such_kind",
		Detail: "there is no kind of that name", Hint: "GET /v1/kinds lists the kinds",
	})
}
