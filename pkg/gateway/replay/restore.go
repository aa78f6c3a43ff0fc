package replay

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// Copier is a Restorer that copies what a backend lacks from the others: the
// database with all its retention policies, with exactly their attributes.
type Copier struct {
	view func() *serving.View
	open func(*topology.Backend) (*influx.Client, error)
}

// NewCopier returns a Copier. open makes the client of a backend, which the Copier
// closes.
func NewCopier(view func() *serving.View, open func(*topology.Backend) (*influx.Client, error)) *Copier {
	return &Copier{view: view, open: open}
}

// Prepare is Restore for a database whose policies are not asked for by name.
func (c *Copier) Prepare(ctx context.Context, backendURL, database string) error {
	return c.Restore(ctx, backendURL, database, "")
}

// Restore makes the database, and the policy in it unless it is "", on the backend.
// ErrNowhere: every other backend has answered, and none has them. With no other
// backend at all nobody can say, which is another error.
func (c *Copier) Restore(ctx context.Context, backendURL, database, policy string) error {
	var to *topology.Backend
	var others []topology.Backend
	for _, b := range c.view().Backends() {
		if b.URL == backendURL {
			to = &b
		} else {
			others = append(others, b)
		}
	}
	if to == nil {
		return fmt.Errorf("%s is no backend", backendURL)
	}
	policies, err := c.find(ctx, others, database, policy)
	if err != nil {
		return fmt.Errorf("looking for database %s and policy %q: %w", database, policy, err)
	}
	client, err := c.open(to)
	if err != nil {
		return err
	}
	defer client.Close()
	return install(ctx, client, database, policies)
}

// find returns the retention policies of the database at a backend that has it, and
// the policy in it.
func (c *Copier) find(ctx context.Context, others []topology.Backend, database, policy string) ([]influx.RetentionPolicy, error) {
	if len(others) == 0 {
		return nil, errors.New("there is no other backend to ask")
	}
	var unknown error
	for i := range others {
		policies, err := c.policies(ctx, &others[i], database)
		switch {
		case err != nil:
			unknown = err
		case len(policies) > 0 && (policy == "" || slices.ContainsFunc(policies, func(p influx.RetentionPolicy) bool { return p.Name == policy })):
			return policies, nil
		}
	}
	if unknown != nil {
		return nil, unknown
	}
	return nil, ErrNowhere
}

// policies returns the policies of a database, none if it is not there.
func (c *Copier) policies(ctx context.Context, b *topology.Backend, database string) ([]influx.RetentionPolicy, error) {
	client, err := c.open(b)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	databases, err := client.Databases(ctx)
	if err != nil || !slices.Contains(databases, database) {
		return nil, err
	}
	return client.RetentionPolicies(ctx, database)
}

// install makes database and policies, and leaves policies that are there alone.
func install(ctx context.Context, client *influx.Client, database string, policies []influx.RetentionPolicy) error {
	first := slices.IndexFunc(policies, func(p influx.RetentionPolicy) bool { return p.Default })
	databases, err := client.Databases(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(databases, database) {
		if first < 0 {
			err = client.CreateDatabase(ctx, database)
		} else {
			err = client.CreateDatabaseWith(ctx, database, policies[first])
		}
		if err != nil {
			return err
		}
	}
	there, err := client.RetentionPolicies(ctx, database)
	if err != nil {
		return err
	}
	for _, p := range policies {
		if slices.ContainsFunc(there, func(t influx.RetentionPolicy) bool { return t.Name == p.Name }) {
			continue
		}
		if err := client.CreateRetentionPolicy(ctx, database, p); err != nil {
			return err
		}
	}
	return nil
}
