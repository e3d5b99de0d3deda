package region

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"atoll/cell"
	"atoll/internal/wire"
	"atoll/model"
	"atoll/model/method"
	"atoll/region/namespace"
	"atoll/rpc"
)

// A namespace is a register that all regions hold and any of them may write, after
// Attiya, Bar-Noy and Dolev (Sharing memory robustly in message-passing systems,
// JACM 42(1), 1995). The door of a change asks the other regions what they have;
// once a majority has answered, and holds the newest of it, the door makes the
// change as a newer one in its own cell, and brings it to the others. When a
// majority holds it, it is acknowledged: whatever majority is asked after that
// has it or something newer.
//
// That the newest must stand before there is a newer one keeps a door from running
// ahead with changes that nobody else has: what it could not bring to a majority is
// at most one version ahead, and is passed by the first change that could.

// namespaceTime bounds a call to another region about a namespace.
const namespaceTime = 1800 * time.Millisecond

func (s *namespaces) upsert(ctx context.Context, c *rpc.Inbound, req *method.NamespaceUpsertRequest) (*method.NamespaceChangeResponse, error) {
	if req.Namespace == nil {
		return nil, model.Invalidf("Namespace", "cannot apply a namespace: the request holds none")
	}
	n := model.Clone(req.Namespace)
	n.Canonicalize()
	if err := n.Validate(); err != nil {
		return nil, err
	}
	return s.change(ctx, c, &method.NamespaceUpsertRequest{Namespace: model.Clone(n)}, n)
}

func (s *namespaces) delete(ctx context.Context, c *rpc.Inbound, req *method.NamespaceDeleteRequest) (*method.NamespaceChangeResponse, error) {
	if req.Name == "" || req.Name == model.AllNamespaces {
		return nil, model.NotFound("namespace", req.Name)
	}
	return s.change(ctx, c, req, &model.Namespace{Name: req.Name, Deleted: true})
}

// change makes a change that is row, but for its version, in all regions.
func (s *namespaces) change(ctx context.Context, c *rpc.Inbound, asks any, row *model.Namespace) (*method.NamespaceChangeResponse, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, model.Errorf(model.KindBusy, "cannot change namespace %q: other changes took longer than the call's time", row.Name)
	}
	asked, err := s.request(c, "", asks)
	if err != nil {
		return nil, err
	}
	row.Writer = s.region
	row.Write = model.NamespaceWrite{ID: asked.ID, Hash: asked.Hash, Issued: asked.Issued, Time: s.clock.Now().UnixNano()}
	all := s.known()
	reached := others(all, s.region)
	kept, err := s.snapshot().Recall(asked)
	if err != nil {
		return nil, err
	}
	if kept == nil && len(reached) > 0 {
		if reached, err = s.consult(ctx, all, row); err != nil {
			return nil, err
		}
	}
	cmd, body := cell.CmdNamespaceUpsert, any(&cell.NamespaceUpsert{Namespace: row})
	if row.Deleted {
		cmd, body = cell.CmdNamespaceDelete, &cell.NamespaceDelete{Name: row.Name, Writer: row.Writer, Write: row.Write}
	}
	index, value, err := s.once(ctx, c, "", asks, cmd, body)
	if err != nil {
		return nil, err
	}
	// One that came before has the place that it had then.
	tag := value.(*model.NamespaceTag)
	made := *row
	made.Version, made.Writer = tag.Version, tag.Writer
	holders, newer, failed := s.bring(ctx, reached, &made)
	if !model.Majority(all, append(holders, s.region)) {
		return nil, &model.Error{Kind: model.KindOutcomeUnknown, Region: s.region, Token: asked.ID, Message: fmt.Sprintf(
			"the change of namespace %q is made in region %q, and waits for a majority of the regions %s: %s; it spreads by itself once they can be reached",
			row.Name, s.region, strings.Join(all, ", "), silence(all, append(holders, s.region), failed))}
	}
	if newer != nil && row.Deleted && !newer.Deleted {
		return nil, model.Errorf(model.KindConflict, "namespace %q was deleted, and is there again: region %q keeps it for a job that came meanwhile, or has changed it; look, and delete it anew", row.Name, newer.Writer)
	}
	return &method.NamespaceChangeResponse{Index: index}, nil
}

func others(all []string, own string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(name string) bool { return name == own })
}

// silence says why regions do not answer.
func silence(all, answer []string, why map[string]error) string {
	var parts []string
	for _, region := range all {
		if slices.Contains(answer, region) {
			continue
		}
		switch err := why[region]; {
		case err == nil:
			parts = append(parts, fmt.Sprintf("region %q did not answer when it was asked before", region))
		case model.KindOf(err) == model.KindUnreachable:
			parts = append(parts, err.Error())
		case model.KindOf(err) == model.KindDeadline:
			parts = append(parts, fmt.Sprintf("region %q gave no answer within %s", region, namespaceTime))
		default:
			parts = append(parts, fmt.Sprintf("region %q: %v", region, err))
		}
	}
	return strings.Join(parts, "; ")
}

// consult prepares a change: it asks the other regions what they have, sees that a
// majority holds the newest of it, and that nothing forbids the change. It returns
// the regions that answered. When one of them has made the change before, for the
// same request, our cell takes that up.
func (s *namespaces) consult(ctx context.Context, all []string, row *model.Namespace) (reached []string, err error) {
	rest := others(all, s.region)
	answers, errs := each(rest, func(region string) (*method.NamespaceAskResponse, error) {
		return rpc.Call(ctx, s.calls, method.NamespaceAsk, rpc.To{Region: region, Timeout: namespaceTime}, &method.NamespaceAskRequest{Name: row.Name, Write: row.Write})
	})
	why := make(map[string]error)
	newest := s.snapshot().NamespaceRow(nil, row.Name)
	var forgotten []*model.Namespace
	var refused error
	for i, a := range answers {
		switch {
		case model.KindOf(errs[i]) == model.KindConflict:
			// It has the request's id for another request, or is not sure.
			refused = errs[i]
			fallthrough
		case a == nil:
			why[rest[i]] = errs[i]
			continue
		case a.Done != nil:
			made := *row
			made.Version, made.Writer = a.Done.Version, a.Done.Writer
			return rest, s.learn(ctx, &made)
		case a.Row != nil && (newest == nil || a.Row.Compare(newest) > 0):
			newest = a.Row
		}
		reached, forgotten = append(reached, rest[i]), append(forgotten, a.Forgotten)
	}
	if refused != nil {
		return nil, refused
	}
	verb := "change"
	if row.Deleted {
		verb = "delete"
	}
	have := append(slices.Clone(reached), s.region)
	if !model.Majority(all, have) {
		return nil, s.unreached(fmt.Sprintf("cannot %s namespace %q: a majority of the regions %s has to answer", verb, row.Name, strings.Join(all, ", ")), all, have, why)
	}
	if row.Deleted {
		for i, a := range answers {
			if a != nil && a.JobID != "" {
				return nil, model.Errorf(model.KindConflict, "cannot delete namespace %q: job %q in it is %s in region %q; stop its jobs first", row.Name, a.JobID, a.JobStatus, rest[i])
			}
		}
		if len(reached) < len(rest) {
			return nil, s.unreached(fmt.Sprintf("cannot delete namespace %q: whether every region has stopped its jobs cannot be known", row.Name), all, have, why)
		}
	}
	// What it was may be forgotten: it goes on above that.
	if err := s.learn(ctx, append(forgotten, newest)...); err != nil || newest == nil {
		return reached, err
	}
	holders, lacking := []string{s.region}, []string(nil)
	for i, a := range answers {
		switch {
		case a == nil:
		case a.Row != nil && a.Row.Compare(newest) >= 0:
			holders = append(holders, rest[i])
		default:
			lacking = append(lacking, rest[i])
		}
	}
	if model.Majority(all, holders) {
		return reached, nil
	}
	brought, _, failed := s.bring(ctx, lacking, newest)
	if holders = append(holders, brought...); !model.Majority(all, holders) {
		return nil, s.unreached(fmt.Sprintf("cannot %s namespace %q: a majority of the regions %s has to hold its last change", verb, row.Name, strings.Join(all, ", ")), all, holders, failed)
	}
	return reached, nil
}

// unreached refuses a change for want of regions; the first of them is the one
// that the error is about.
func (s *namespaces) unreached(what string, all, have []string, why map[string]error) error {
	e := &model.Error{Kind: model.KindUnreachable, Message: what + "; " + silence(all, have, why) + "; nothing was changed"}
	for _, region := range all {
		if !slices.Contains(have, region) {
			e.Region, e.LastContact = region, 0
			if err := why[region]; err != nil {
				e.LastContact = model.AsError(err).LastContact
			}
			return e
		}
	}
	return e
}

// bring brings a row to regions, and returns those that have it then, or a newer
// one; the newest of these; and why others do not.
func (s *namespaces) bring(ctx context.Context, to []string, row *model.Namespace) (holders []string, newer *model.Namespace, failed map[string]error) {
	answers, errs := each(to, func(region string) (*method.NamespaceTellResponse, error) {
		return s.tell(ctx, region, &method.NamespaceTellRequest{Rows: []*model.Namespace{row}})
	})
	failed = make(map[string]error)
	for i, a := range answers {
		if a == nil {
			failed[to[i]] = errs[i]
			continue
		}
		holders = append(holders, to[i])
		for _, r := range a.Rows {
			if newer == nil || r.Compare(newer) > 0 {
				newer = r
			}
		}
	}
	return holders, newer, failed
}

// tell and commit are the loop's ways to other regions and to the state.
func (s *namespaces) tell(ctx context.Context, region string, req *method.NamespaceTellRequest) (*method.NamespaceTellResponse, error) {
	return rpc.Call(ctx, s.calls, method.NamespaceTell, rpc.To{Region: region, Timeout: namespaceTime}, req)
}

func (s *namespaces) commit(ctx context.Context, body *cell.NamespaceLearn) error {
	_, value, err := s.Apply(ctx, cell.CmdNamespaceLearn, body)
	if err != nil {
		return err
	}
	for _, k := range value.(*cell.NamespaceLearned).Kept {
		s.log.Warn("a namespace was deleted by another region while a job came to it here; it is kept", "namespace", k.Name, "job", k.JobID)
	}
	return nil
}

func (s *namespaces) learn(ctx context.Context, rows ...*model.Namespace) error {
	body := namespace.Learn(s.snapshot(), s.region, rows, s.clock.Now(), s.log)
	if body == nil {
		return nil
	}
	return s.commit(ctx, body)
}

// asked answers a door. What it says must hold whatever was acknowledged before.
func (s *namespaces) asked(ctx context.Context, _ *rpc.Inbound, req *method.NamespaceAskRequest) (*method.NamespaceAskResponse, error) {
	if err := s.verify(ctx); err != nil {
		return nil, err
	}
	snap := s.snapshot()
	kept, err := snap.Recall(cell.NamespaceRequest(&req.Write))
	if err != nil {
		return nil, err
	}
	out := &method.NamespaceAskResponse{Row: snap.NamespaceRow(nil, req.Name), Forgotten: snap.NamespaceRow(nil, model.AllNamespaces)}
	if kept != nil {
		out.Done = new(model.NamespaceTag)
		if err := wire.Decode(kept.Answer, out.Done); err != nil {
			return nil, err
		}
	}
	if j := cell.LiveJob(snap, req.Name); j != nil {
		out.JobID, out.JobStatus = j.ID, j.Status
	}
	return out, nil
}

func (s *namespaces) told(ctx context.Context, _ *rpc.Inbound, req *method.NamespaceTellRequest) (*method.NamespaceTellResponse, error) {
	if err := s.learn(ctx, req.Rows...); err != nil {
		return nil, err
	}
	return namespace.Tell(s.snapshot(), req), nil
}
