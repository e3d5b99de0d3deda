package api

import (
	"atoll/federation"
	"atoll/model"
	"atoll/model/method"
)

func listNamespaces(r *request) (any, error) {
	out, err := call(r, method.NamespaceList, &method.ListRequest{Query: r.read}, func(out *method.NamespaceListResponse) *method.Meta { return &out.Meta })
	if err != nil {
		return nil, err
	}
	r.ages(out.Regions)
	return orEmpty(out.Namespaces), nil
}

// ages says how old the copy is that was read, where the server knows.
func (r *request) ages(regions []model.RegionAnswer) {
	if len(regions) > 0 {
		r.response.Header().Set(regionsHeader, federation.FormatHeader(regions))
	}
}

func readNamespace(r *request) (any, error) {
	out, err := call(r, method.NamespaceGet, &method.NamespaceRequest{Query: r.read, Name: r.id}, func(out *method.NamespaceResponse) *method.Meta { return &out.Meta })
	if err != nil {
		return nil, err
	}
	r.ages(out.Regions)
	if out.Namespace == nil {
		return nil, notFound("namespace", r.id)
	}
	return out.Namespace, nil
}

// applyNamespace makes or changes the namespace that the path or, where it names
// none, the body names.
func applyNamespace(r *request) (any, error) {
	in := new(model.Namespace)
	if err := r.body(in); err != nil {
		return nil, err
	}
	if r.id != "" {
		if err := r.names(&in.Name, "Name"); err != nil {
			return nil, err
		}
	}
	_, err := write(r, method.NamespaceUpsert, &method.NamespaceUpsertRequest{Namespace: in}, func(out *method.NamespaceChangeResponse) uint64 { return out.Index })
	return nil, err
}

func deleteNamespace(r *request) (any, error) {
	_, err := write(r, method.NamespaceDelete, &method.NamespaceDeleteRequest{Name: r.id}, func(out *method.NamespaceChangeResponse) uint64 { return out.Index })
	return nil, err
}
