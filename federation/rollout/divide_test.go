package rollout

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"atoll/model"
)

func TestDivide(t *testing.T) {
	const most = 1000
	for _, c := range []struct {
		total int
		parts []Part
		want  []int
	}{
		{9, []Part{{Weight: 1, Max: most}, {Weight: 1, Max: most}, {Weight: 1, Max: most}}, []int{3, 3, 3}},
		{10, []Part{{Weight: 2, Max: most}, {Weight: 1, Max: most}, {Weight: 1, Max: most}}, []int{5, 3, 2}},
		// Who has keeps, where claims are equal.
		{10, []Part{{Weight: 1, Max: most, Had: 3}, {Weight: 1, Max: most, Had: 3}, {Weight: 1, Max: most, Had: 4}}, []int{3, 3, 4}},
		{10, []Part{{Weight: 1, Max: 2}, {Weight: 1, Max: most}, {Weight: 1, Max: most}}, []int{2, 4, 4}},
		{10, []Part{{Weight: 0, Min: 1, Max: most}, {Weight: 1, Max: most}}, []int{1, 9}},
		{10, []Part{{Weight: 9, Max: 4}, {Weight: 1, Min: 1, Max: most}, {Weight: 0, Max: most}}, []int{4, 6, 0}},
		{0, []Part{{Weight: 1, Max: most}}, []int{0}},
	} {
		got, err := Divide(c.total, c.parts)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%d among %+v: %v, %v; want %v", c.total, c.parts, got, err, c.want)
		}
	}
	if _, err := Divide(10, []Part{{Weight: 1, Max: 4}, {Weight: 1, Max: 5}}); err == nil || !strings.Contains(err.Error(), "0 to 9") {
		t.Errorf("a total that does not fit: %v", err)
	}
}

// Whatever is divided adds up and keeps its bounds; and a count that changes by
// one moves one replica when the regions have room.
func TestDivisionAddsUpWithinItsBounds(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		parts := make([]Part, 1+rng.IntN(6))
		room := make([]int, len(parts))
		least, most := 0, 0
		for i := range parts {
			lo := rng.IntN(4)
			parts[i] = Part{Weight: rng.IntN(5), Min: lo, Max: lo + rng.IntN(30), Had: rng.IntN(20)}
			room[i] = rng.IntN(20)
			least, most = least+parts[i].Min, most+parts[i].Max
		}
		total := least + rng.IntN(most-least+1)
		check := func(what string, got []int, max func(int) int) {
			sum := 0
			for i, n := range got {
				sum += n
				if n < parts[i].Min || n > max(i) {
					t.Fatalf("%s of %d among %+v (room %v): %v", what, total, parts, room, got)
				}
			}
			if sum != total {
				t.Fatalf("%s of %d among %+v: %v adds up to %d", what, total, parts, got, sum)
			}
		}
		got, err := Divide(total, parts)
		if err != nil {
			t.Fatalf("%d among %+v: %v", total, parts, err)
		}
		check("division", got, func(i int) int { return parts[i].Max })
		bounded := slices.Clone(parts)
		if got, err := Capacity(total, bounded, room); err == nil {
			check("division by capacity", got, func(i int) int { return max(parts[i].Min, min(parts[i].Max, parts[i].Had+room[i])) })
			moved, had := 0, 0
			for i, n := range got {
				kept := min(max(parts[i].Had, parts[i].Min), bounded[i].Max)
				moved, had = moved+max(n-kept, kept-n), had+kept
			}
			if moved != max(total-had, had-total) {
				t.Fatalf("%d among %+v (room %v): %v moves %d, and %d were enough", total, parts, room, got, moved, max(total-had, had-total))
			}
		}
	}
}

func TestCounts(t *testing.T) {
	m := &model.Multiregion{Count: 10, Placement: model.PlacementCapacity, Regions: []*model.MultiregionRegion{{Name: "us"}, {Name: "eu", Max: 4}, {Name: "ap"}}}
	for _, c := range []struct {
		had, room []int
		want      string
	}{
		{[]int{0, 0, 0}, []int{30, 30, 0}, "[7 3 0] <nil>"},
		{[]int{4, 3, 3}, []int{0, 0, 0}, "[4 3 3] <nil>"},
		{[]int{4, 3, 0}, []int{0, 9, 9}, "[4 3 3] <nil>"},
		{[]int{1, 0, 0}, []int{2, 2, 2}, "[] the regions have room for 7 of 10"},
	} {
		got, err := Counts(m, c.had, c.room)
		if s := fmt.Sprint(got, " ", err); s != c.want {
			t.Errorf("had %v, room %v: %s, want %s", c.had, c.room, s, c.want)
		}
	}
}
