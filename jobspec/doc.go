// Package jobspec reads a job file: HCL2 text to a model.Job.
//
//	guard      size, nesting and operators are bounded before the parser, which
//	           recurses, sees the text
//	variables  variable, variables and locals blocks, and values from outside
//	decode     one table a block, from names to what they set
//
// Names that are not known when the file is read, such as ${attr.kernel.name} or
// ${NOMAD_PORT_http}, stay in the text for the node to fill in. What an expression
// may cost is bounded: a file from anybody is read in a second, or refused.
//
// The package reads text alone: no files, no environment, unless its caller
// gives it them. It does not say whether a job makes sense: that is
// model.Job.Validate's.
package jobspec
