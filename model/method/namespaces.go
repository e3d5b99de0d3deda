package method

import "atoll/model"

var (
	NamespaceList   = read[ListRequest, NamespaceListResponse]("Namespace.List")
	NamespaceGet    = read[NamespaceRequest, NamespaceResponse]("Namespace.Get")
	NamespaceUpsert = write[NamespaceUpsertRequest, NamespaceChangeResponse]("Namespace.Upsert")
	NamespaceDelete = write[NamespaceDeleteRequest, NamespaceChangeResponse]("Namespace.Delete")

	// NamespaceAsk asks another region what it knows of a namespace, before that
	// is changed.
	NamespaceAsk = Method[NamespaceAskRequest, NamespaceAskResponse]{Spec{Name: "Namespace.Ask", Place: AtLeader}}
	// NamespaceTell exchanges what two regions have.
	NamespaceTell = report[NamespaceTellRequest, NamespaceTellResponse]("Namespace.Tell")
)

type (
	// NamespaceListResponse has with the namespaces how old the region's copy of
	// them is: when it last heard from each of the others. Only a leader knows.
	NamespaceListResponse struct {
		Meta
		Namespaces []*model.Namespace
		Regions    []model.RegionAnswer
	}
	NamespaceRequest struct {
		Query
		Name string
	}
	NamespaceResponse struct {
		Meta
		Namespace *model.Namespace
		Regions   []model.RegionAnswer
	}
	NamespaceUpsertRequest  struct{ Namespace *model.Namespace }
	NamespaceDeleteRequest  struct{ Name string }
	NamespaceChangeResponse struct{ Index uint64 }

	NamespaceAskRequest struct {
		Name string
		// Write is the request that is to change it.
		Write model.NamespaceWrite
	}
	NamespaceAskResponse struct {
		// Row is the region's, nil when it knows nothing of the name. Forgotten
		// stands for those that it has forgotten, nil when there are none.
		Row, Forgotten *model.Namespace
		// Done is the change that the request made before, nil when the region does
		// not know it.
		Done *model.NamespaceTag
		// JobID is a job there that is not over, "" when there is none.
		JobID, JobStatus string
	}

	// NamespaceTellRequest brings rows, which the answer's receiver then has or
	// has newer ones; and asks for the rows called Want, and, unless Sum is empty,
	// whether all rows are the same.
	NamespaceTellRequest struct {
		Rows []*model.Namespace
		Want []string
		Sum  []byte
	}
	// NamespaceTellResponse has the rows that were wanted, and those that are newer
	// than what was brought. Index is of the newest change in the region.
	NamespaceTellResponse struct {
		Index uint64
		Rows  []*model.Namespace
		// Differ says that the sums were not the same; All are all rows then,
		// without what they say.
		Differ bool
		All    []*model.Namespace
	}
)
