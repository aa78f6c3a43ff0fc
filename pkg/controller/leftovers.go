package controller

import (
	"context"
	"errors"
	"fmt"

	"ringmaster/pkg/ledger"
)

// sweepLeftovers looks through all that is stored for what belongs to no operation.
// What retention has begun to remove is retention's.
func (s *Sweeper) sweepLeftovers(ctx context.Context, all *survey, renew func() error) error {
	before := s.Now().Add(-leftoversAge)
	var failed error
	for _, part := range []func() error{
		func() error {
			return s.sweepOwners(ctx, all, renew, s.Ledger.TaskOwners, RepairTasks, s.Ledger.EraseTasks)
		},
		func() error { return s.sweepNotes(ctx, all, renew) },
		func() error { return s.sweepDocuments(ctx, all, renew) },
		func() error { return s.sweepKeys(ctx, all, renew) },
		func() error {
			n, err := s.Ledger.RemoveStrayChunks(ctx, before)
			return errors.Join(err, s.repaired(ctx, RepairChunks, "", "of documents that were never finished", n))
		},
	} {
		failed = errors.Join(failed, part())
	}
	if failed == nil {
		s.swept = s.Now()
	}
	return failed
}

// sweepOwners removes what there is of operations that are no more.
func (s *Sweeper) sweepOwners(ctx context.Context, all *survey, renew func() error, owners func(context.Context) ([]string, error), what string, remove func(context.Context, string) error) error {
	ids, err := owners(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		f, err := s.fate(ctx, all, id)
		if err != nil {
			return err
		}
		if f != gone {
			continue
		}
		if err := errors.Join(renew(), remove(ctx, id)); err != nil {
			return err
		}
		if err := s.repaired(ctx, what, id, "there is no such operation", 1); err != nil {
			return err
		}
	}
	return nil
}

// sweepNotes removes notes of operations that are no more, or that have ended and been
// closed: nobody settles them any more.
func (s *Sweeper) sweepNotes(ctx context.Context, all *survey, renew func() error) error {
	ids, err := s.Ledger.NoteOwners(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		f, err := s.fate(ctx, all, id)
		if err != nil {
			return err
		}
		if f == lives || all.open[id] {
			continue
		}
		if err := errors.Join(renew(), s.Ledger.ForgetNotes(ctx, id)); err != nil {
			return err
		}
		if err := s.repaired(ctx, RepairNotes, id, "the operation has ended or is no more", 1); err != nil {
			return err
		}
	}
	return nil
}

// sweepDocuments removes plans and reports of operations that are no more.
func (s *Sweeper) sweepDocuments(ctx context.Context, all *survey, renew func() error) error {
	documents, err := s.Ledger.Documents(ctx)
	if err != nil {
		return err
	}
	owners := func(context.Context) ([]string, error) {
		ids := make([]string, 0, len(documents))
		for id := range documents {
			ids = append(ids, id)
		}
		return ids, nil
	}
	return s.sweepOwners(ctx, all, renew, owners, RepairDocuments, func(ctx context.Context, id string) error {
		return s.Ledger.RemoveDocuments(ctx, names(documents[id]))
	})
}

// sweepKeys removes idempotency keys whose submission died before the operation's
// record was made, or whose operation is no more.
func (s *Sweeper) sweepKeys(ctx context.Context, all *survey, renew func() error) error {
	claims, err := s.Ledger.Claims(ctx, s.Now().Add(-ledger.ClaimPatience))
	if err != nil {
		return err
	}
	for _, c := range claims {
		f, err := s.fate(ctx, all, c.OperationID)
		if err != nil {
			return err
		}
		if f != gone {
			continue
		}
		if err := errors.Join(renew(), s.Ledger.RemoveClaim(ctx, c)); err != nil {
			return err
		}
		if err := s.repaired(ctx, RepairKey, c.OperationID, fmt.Sprintf("a key of %s stands for no operation", c.StoredAt.UTC().Format("2006-01-02T15:04:05Z")), 1); err != nil {
			return err
		}
	}
	return nil
}
