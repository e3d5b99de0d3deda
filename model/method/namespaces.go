package method

import "atoll/model"

var (
	NamespaceList   = read[ListRequest, NamespaceListResponse]("Namespace.List")
	NamespaceGet    = read[NamespaceRequest, NamespaceResponse]("Namespace.Get")
	NamespaceUpsert = write[NamespaceUpsertRequest, NamespaceChangeResponse]("Namespace.Upsert")
	NamespaceDelete = write[NamespaceDeleteRequest, NamespaceChangeResponse]("Namespace.Delete")
)

type (
	NamespaceListResponse struct {
		Meta
		Namespaces []*model.Namespace
	}
	NamespaceRequest struct {
		Query
		Name string
	}
	NamespaceResponse struct {
		Meta
		Namespace *model.Namespace
	}
	NamespaceUpsertRequest  struct{ Namespace *model.Namespace }
	NamespaceDeleteRequest  struct{ Name string }
	NamespaceChangeResponse struct{ Index uint64 }
)
