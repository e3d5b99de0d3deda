// Package summary keeps copies of what the other regions have: a small row of
// each of their jobs, nodes and deployments, so that a question about all regions
// is answered at once, also while some of them cannot be reached.
//
// Each server pulls from every other region what changed since it last asked,
// once a second, and twice while things change (Copies). It is a pull, not a
// stream, for the sake of age: an answer is as old as its question at the most,
// and when that was asked is known by our own clock. The region that answers
// keeps nothing between two questions, and each goes to its nearest server that
// is well. A region that does not answer keeps its rows, which grow old.
//
// A Copy is immutable, and ordered by namespace and id; a change makes a new one
// that shares what did not change. The own region has a copy too (Own), brought
// up to date whenever somebody asks.
//
// Copies.Run and what it starts are the package's goroutines. It knows neither
// the cell nor the directory: whoever wires it says how to read both.
package summary
