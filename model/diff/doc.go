// Package diff tells what differs between two versions of a job, in the shape in
// which Nomad's clients read it, and notes what an evaluation would make of it.
//
// A job is made a tree of texts by one walk over the model's types (tree.go), so
// that a field which is added to the model is compared without a word here. Two
// trees are then compared (diff.go). Everything is in a stable order. The package
// is pure: it reads jobs, which may be shared, and changes none.
package diff
