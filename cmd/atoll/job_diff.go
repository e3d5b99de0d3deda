package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"
)

// diffPrinter lays a job's diff out as people know it from Nomad.
type diffPrinter struct {
	w io.Writer
	// verbose shows what is within things that were added or deleted.
	verbose bool
}

// mark is how a line begins.
func mark(kind string) string {
	switch kind {
	case "Added":
		return "+ "
	case "Deleted":
		return "- "
	case "Edited":
		return "+/- "
	}
	return ""
}

// notes are what stands in brackets behind a line.
func notes(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return " (" + strings.Join(list, ", ") + ")"
}

func (p *diffPrinter) within(kind string) bool {
	return kind == "Edited" || p.verbose && kind != "None"
}

func (p *diffPrinter) job(d *api.JobDiff) {
	fmt.Fprintf(p.w, "%sJob: %q\n", mark(d.Type), d.ID)
	if p.within(d.Type) {
		p.body(0, d.Fields, d.Objects)
	}
	for i, g := range d.TaskGroups {
		if i > 0 {
			fmt.Fprintln(p.w)
		}
		var counts []string
		for _, word := range slices.Sorted(maps.Keys(g.Updates)) {
			counts = append(counts, fmt.Sprintf("%d %s", g.Updates[word], word))
		}
		fmt.Fprintf(p.w, "%sTask Group: %q%s\n", mark(g.Type), g.Name, notes(counts))
		if p.within(g.Type) {
			p.body(2, g.Fields, g.Objects)
		}
		for _, t := range g.Tasks {
			fmt.Fprintf(p.w, "  %sTask: %q%s\n", mark(t.Type), t.Name, notes(t.Annotations))
			if p.within(t.Type) {
				p.body(4, t.Fields, t.Objects)
			}
		}
	}
}

// body shows fields and blocks, their names and values one below the other.
func (p *diffPrinter) body(indent int, fields []*api.FieldDiff, objects []*api.ObjectDiff) {
	marks, names := 0, 0
	for _, f := range fields {
		marks, names = max(marks, len(mark(f.Type))), max(names, len(f.Name))
	}
	for _, o := range objects {
		marks = max(marks, len(mark(o.Type)))
	}
	margin := strings.Repeat(" ", indent)
	for _, f := range fields {
		value := fmt.Sprintf("%q", f.New)
		switch f.Type {
		case "Deleted":
			value = fmt.Sprintf("%q", f.Old)
		case "Edited":
			value = fmt.Sprintf("%q => %q", f.Old, f.New)
		}
		fmt.Fprintf(p.w, "%s%-*s%-*s %s%s\n", margin, marks, mark(f.Type), names+1, f.Name+":", value, notes(f.Annotations))
	}
	for _, o := range objects {
		fmt.Fprintf(p.w, "%s%-*s%s {\n", margin, marks, mark(o.Type), o.Name)
		p.body(indent+2, o.Fields, o.Objects)
		fmt.Fprintf(p.w, "%s%s}\n", margin, strings.Repeat(" ", marks))
	}
}
