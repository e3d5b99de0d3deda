package api

import "atoll/model/method"

func collectGarbage(r *request) (any, error) {
	_, err := call(r, method.SystemGC, &method.Empty{}, nil)
	return nil, err
}

func reconcileSummaries(r *request) (any, error) {
	_, err := write(r, method.SystemReconcile, &method.Empty{}, func(out *method.IndexResponse) uint64 { return out.Index })
	return nil, err
}
