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
		operation.KindRecovery:              schemaOf[events.RecoveryParameters],
		operation.KindResync:                schemaOf[events.ResyncParameters],
		operation.KindClear:                 schemaOf[events.ClearParameters],
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

func schemaOf[T any]() (*jsonschema.Schema, error) { return jsonschema.For[T](nil) }

// rebalanceSchema adds to the struct's own schema what ParseRebalance checks
// and the types do not say.
func rebalanceSchema() (*jsonschema.Schema, error) {
	s, err := schemaOf[operation.Rebalance]()
	if err != nil {
		return nil, err
	}
	p := s.Properties
	describe(p["circle_id"], "index of the circle in the configuration, from 0")
	p["circle_id"].Minimum = new(0.0)
	describe(p["operation"], "add: the circle has grown; rm: backends have left it")
	p["operation"].Enum = []any{operation.RebalanceAdd, operation.RebalanceRemove}
	describe(p["databases"], "limits the move; left out or empty means all")
	p["databases"].Items.MinLength = new(1)
	describe(p["workers"], "how many measurements move at once from one source; 0 leaves it to the free slots")
	p["workers"].Minimum, p["workers"].Maximum = new(0.0), new(float64(operation.MaxWorkers))
	describe(p["depth"], "how the copy is proven; count unless given")
	p["depth"].Enum = []any{operation.DepthCount, operation.DepthDigest}
	removed := p["removed_backends"]
	describe(removed, "the backends that left the circle; required for rm, refused for add")
	// The stored form of the credentials is nothing that a client gives.
	delete(removed.Items.Properties, "sealed")
	removed.Items.PropertyOrder = nil
	removed.Items.Properties["name"].MinLength = new(1)
	address := removed.Items.Properties["url"]
	describe(address, "address without credentials")
	address.Format, address.Pattern = "uri", "^https?://[^@]+$"

	// Removed backends belong to rm, and rm needs some.
	s.If = &jsonschema.Schema{Properties: map[string]*jsonschema.Schema{"operation": {Const: new(any(operation.RebalanceRemove))}}}
	s.Then = &jsonschema.Schema{
		Required:   []string{"removed_backends"},
		Properties: map[string]*jsonschema.Schema{"removed_backends": {MinItems: new(1)}},
	}
	s.Else = &jsonschema.Schema{Properties: map[string]*jsonschema.Schema{"removed_backends": {MaxItems: new(0)}}}
	return s, nil
}

func describe(s *jsonschema.Schema, text string) { s.Description = text }

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
