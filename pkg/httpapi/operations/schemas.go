package operations

import (
	"github.com/google/jsonschema-go/jsonschema"

	"ringmaster/pkg/operation"
)

// The patterns of what the moves' parameters name. Days beyond the end of a month
// are left to the parser.
const (
	addressPattern = "^https?://[^/?#@]+(/[^?#]*)?$"
	momentPattern  = `^(167[89]|16[89][0-9]|1[7-9][0-9]{2}|2[01][0-9]{2}|22[0-5][0-9]|226[01])-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])` +
		`T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
)

func schemaOf[T any]() (*jsonschema.Schema, error) { return jsonschema.For[T](nil) }

// moveSchema is the schema of the struct that a move's parameters are read into,
// with what all moves check and the types do not say.
func moveSchema[T operation.Move]() (*jsonschema.Schema, error) {
	s, err := schemaOf[T]()
	if err != nil {
		return nil, err
	}
	p := s.Properties
	describe(p["databases"], "limits the move; left out or empty means all")
	p["databases"].Items.MinLength = new(1)
	bound(p["workers"], "how many tasks read from one source at once; 0 leaves it to the free slots", operation.MaxWorkers)
	bound(p["batch"], "how many points one write holds at most; 0 leaves it to the worker", operation.MaxBatch)
	describe(p["depth"], "count leaves alone what has equal counts at both ends, digest reads everything back; "+
		"left out, counts prove a copy to an empty destination and points everything else")
	p["depth"].Enum = []any{"", operation.DepthCount, operation.DepthDigest}
	return s, nil
}

func rebalanceSchema() (*jsonschema.Schema, error) {
	s, err := moveSchema[operation.Rebalance]()
	if err != nil {
		return nil, err
	}
	p := s.Properties
	circle(p["circle_id"], "index of the circle in the configuration, from 0")
	describe(p["operation"], "add: the circle has grown; rm: backends have left it")
	p["operation"].Enum = []any{operation.RebalanceAdd, operation.RebalanceRemove}
	removed := p["removed_backends"]
	describe(removed, "the backends that left the circle, each once; required for rm, refused for add")
	// The stored form of the credentials is nothing that a client gives.
	delete(removed.Items.Properties, "sealed")
	removed.Items.PropertyOrder = nil
	removed.Items.Properties["name"].MinLength = new(1)
	address(removed.Items.Properties["url"])

	// Removed backends belong to rm, and rm needs some.
	s.If = &jsonschema.Schema{Properties: map[string]*jsonschema.Schema{"operation": {Const: new(any(operation.RebalanceRemove))}}}
	s.Then = &jsonschema.Schema{
		Required:   []string{"removed_backends"},
		Properties: map[string]*jsonschema.Schema{"removed_backends": {MinItems: new(1)}},
	}
	s.Else = &jsonschema.Schema{Properties: map[string]*jsonschema.Schema{"removed_backends": {MaxItems: new(0)}}}
	return s, nil
}

func recoverySchema() (*jsonschema.Schema, error) {
	s, err := moveSchema[operation.Recovery]()
	if err != nil {
		return nil, err
	}
	p := s.Properties
	circle(p["from_circle_id"], "index of the circle to copy from, which has its way where both hold a point")
	circle(p["to_circle_id"], "index of the circle to fill, which is another one")
	describe(p["backend_urls"], "limits what is written to these backends of the circle; left out or empty means all")
	p["backend_urls"].UniqueItems = true
	address(p["backend_urls"].Items)
	since(s)
	return s, nil
}

func resyncSchema() (*jsonschema.Schema, error) {
	s, err := moveSchema[operation.Resync]()
	if err != nil {
		return nil, err
	}
	since(s)
	return s, nil
}

func clearSchema() (*jsonschema.Schema, error) {
	s, err := moveSchema[operation.Clear]()
	if err != nil {
		return nil, err
	}
	p := s.Properties
	circle(p["circle_id"], "index of the circle in the configuration, from 0")
	bound(p["older_than_seconds"], "drops only what is older than that at the request; 0 means all", operation.MaxSeconds)
	describe(p["depth"], "nothing is dropped that was not compared point by point, asked for or not")
	p["depth"].Enum = []any{"", operation.DepthDigest}
	return s, nil
}

func verifySchema() (*jsonschema.Schema, error) {
	s, err := moveSchema[operation.Verify]()
	if err != nil {
		return nil, err
	}
	p := s.Properties
	circle(p["circle_id"], "index of the circle in the configuration, from 0")
	p["against_circle_id"] = &jsonschema.Schema{
		Types: []string{"null", "integer"}, Minimum: new(0.0),
		Description: "index of the circle it is compared with; circle_id again means what lies in wrong places of the circle; " +
			"left out, the lowest other circle, or circle_id where there is no other",
	}
	describe(p["repair"], "copies the points that one side lacks from the other; replaces no value, deletes nothing")
	describe(p["repair_from"], "the side that is copied from: circle (circle_id) or against (against_circle_id); required with repair, refused without")
	p["repair_from"].Enum = []any{"", operation.SideCircle, operation.SideAgainst}
	describe(p["depth"], "count compares the counts of every series and field, and the points only where they differ; digest, the default, compares every point by value")
	describe(p["batch"], "how many points one write of a repair holds at most; 0 leaves it to the worker")
	since(s)

	// A side to copy from belongs to a repair, and a repair needs one.
	sides := []any{operation.SideCircle, operation.SideAgainst}
	s.If = &jsonschema.Schema{
		Required: []string{"repair"}, Properties: map[string]*jsonschema.Schema{"repair": {Const: new(any(true))}},
	}
	s.Then = &jsonschema.Schema{
		Required: []string{"repair_from"}, Properties: map[string]*jsonschema.Schema{"repair_from": {Enum: sides}},
	}
	s.Else = &jsonschema.Schema{Properties: map[string]*jsonschema.Schema{"repair_from": {Enum: []any{""}}}}
	return s, nil
}

// since limits a move to recent points, in one of two ways.
func since(s *jsonschema.Schema) {
	p := s.Properties
	bound(p["since_seconds"], "limits it to the last seconds before the request; 0 means all", operation.MaxSeconds)
	// The embedded struct's name hides its field of that name from For.
	p["since"] = &jsonschema.Schema{
		Types: []string{"null", "string"}, Format: "date-time", Pattern: momentPattern,
		Description: "limits it to points that are not older; not beside since_seconds",
	}
	s.PropertyOrder = append(s.PropertyOrder, "since")
	s.Not = &jsonschema.Schema{
		Required: []string{"since", "since_seconds"},
		Properties: map[string]*jsonschema.Schema{
			"since": {Type: "string"}, "since_seconds": {Minimum: new(1.0)},
		},
	}
}

func describe(s *jsonschema.Schema, text string) { s.Description = text }

// bound is a number from 0 to most.
func bound(s *jsonschema.Schema, text string, most float64) {
	describe(s, text)
	s.Minimum, s.Maximum = new(0.0), &most
}

func circle(s *jsonschema.Schema, text string) {
	describe(s, text)
	s.Minimum = new(0.0)
}

func address(s *jsonschema.Schema) {
	describe(s, "address of a backend, without credentials")
	s.Format, s.Pattern = "uri", addressPattern
}
