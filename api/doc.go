// Package api is the HTTP surface: one table of routes, and handlers that decode
// a request, make one call and encode its answer. Paths, parameters, headers and
// JSON are Nomad's, so that its clients work unchanged; what Nomad has and this
// version lacks answers 501.
//
// What Atoll adds: region=* on lists asks every region, and the header
// X-Atoll-Regions says what each region's rows are worth; what is under
// /v1/federation answers for all regions at once, from what is known of them.
//
// The package holds no state but its configuration. Its goroutines are those of
// requests, and the server's that serves it waits for them. To add an endpoint,
// add a line to the table in routes.go and a handler in the file of its noun; the
// method it calls is declared in model/method and bound in region.
package api
