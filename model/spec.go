package model

import "reflect"

// SameSpec reports whether two versions of a job say the same in everything
// that a user writes.
func SameSpec(a, b *Job) bool {
	x, y := *a, *b
	for _, j := range []*Job{&x, &y} {
		j.Status, j.StatusDescription, j.Stable, j.VersionTag = "", "", false, nil
		j.Version, j.SubmitTime = 0, 0
		j.CreateIndex, j.ModifyIndex, j.JobModifyIndex = 0, 0, 0
	}
	return reflect.DeepEqual(x, y)
}
