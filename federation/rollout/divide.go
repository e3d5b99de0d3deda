package rollout

import (
	"cmp"
	"fmt"
	"slices"

	"atoll/model"
)

// Part is a region's claim to a count that is divided.
type Part struct {
	// Weight is its claim, in proportion to the others'.
	Weight int
	// Min and Max bound what it gets.
	Min, Max int
	// Had is what it has now. Where claims are equal, who has keeps.
	Had int
}

// Divide divides total among parts by their weights, by the largest remainder
// (Hamilton's method), within their bounds. It fails when the bounds do not
// allow it.
func Divide(total int, parts []Part) ([]int, error) {
	least, most := 0, 0
	for _, p := range parts {
		least, most = least+p.Min, most+min(p.Max, total)
	}
	if least > total || most < total {
		return nil, fmt.Errorf("%d cannot be divided: the regions take from %d to %d", total, least, most)
	}
	out := make([]int, len(parts))
	open := make([]int, len(parts))
	for i := range parts {
		open[i] = i
	}
	// Whoever's fair share is out of its bounds gets the bound: on the side
	// where the bounds weigh more, since that moves the others' away from the
	// other side.
	for {
		weights := 0
		for _, i := range open {
			weights += parts[i].Weight
		}
		ideal := func(i int) float64 {
			if weights == 0 {
				return float64(total) / float64(len(open))
			}
			return float64(total) * float64(parts[i].Weight) / float64(weights)
		}
		over, under := 0.0, 0.0
		for _, i := range open {
			over += max(0, ideal(i)-float64(parts[i].Max))
			under += max(0, float64(parts[i].Min)-ideal(i))
		}
		if over == 0 && under == 0 {
			largestRemainder(total, parts, open, ideal, out)
			return out, nil
		}
		var still []int
		given := 0
		for _, i := range open {
			switch {
			case over >= under && ideal(i) > float64(parts[i].Max):
				out[i] = parts[i].Max
			case over < under && ideal(i) < float64(parts[i].Min):
				out[i] = parts[i].Min
			default:
				still = append(still, i)
				continue
			}
			given += out[i]
		}
		open, total = still, total-given
	}
}

// largestRemainder rounds the ideals so that they add up. A part whose ideal is
// within its bounds stays within them, as those are whole numbers.
func largestRemainder(total int, parts []Part, open []int, ideal func(int) float64, out []int) {
	rest := total
	for _, i := range open {
		out[i] = int(ideal(i))
		rest -= out[i]
	}
	order := slices.Clone(open)
	slices.SortStableFunc(order, func(a, b int) int {
		ra, rb := ideal(a)-float64(out[a]), ideal(b)-float64(out[b])
		return cmp.Or(cmp.Compare(rb, ra), -cmp.Compare(parts[a].Had-out[a], parts[b].Had-out[b]))
	})
	for _, i := range order[:max(0, min(rest, len(order)))] {
		out[i]++
	}
}

// Capacity divides total by room: each region keeps what it has as far as it
// may, and only the difference is divided, by the room that is left (room holds
// how many more fit in each).
func Capacity(total int, parts []Part, room []int) ([]int, error) {
	out := make([]int, len(parts))
	diff := total
	for i, p := range parts {
		most := max(p.Min, min(p.Max, p.Had+room[i]))
		out[i] = min(max(p.Had, p.Min), most)
		parts[i].Max = most
		diff -= out[i]
	}
	change := make([]Part, len(parts))
	for i, p := range parts {
		if diff >= 0 {
			change[i] = Part{Weight: p.Max - out[i], Max: p.Max - out[i]}
		} else {
			change[i] = Part{Weight: out[i] - p.Min, Max: out[i] - p.Min}
		}
	}
	moved, err := Divide(max(diff, -diff), change)
	if err != nil {
		fits := 0
		for _, p := range parts {
			fits += p.Max
		}
		return nil, fmt.Errorf("the regions have room for %d of %d", fits, total)
	}
	for i := range out {
		if diff >= 0 {
			out[i] += moved[i]
		} else {
			out[i] -= moved[i]
		}
	}
	return out, nil
}

// Counts divides the count of a multi-region job among its regions. had are the
// present parts, room how many more would fit in each (used for the placement by
// capacity); both in the order of the regions. A job that divides nothing has nil.
func Counts(m *model.Multiregion, had, room []int) ([]int, error) {
	if !m.Divides() {
		return nil, nil
	}
	parts := make([]Part, len(m.Regions))
	for i, r := range m.Regions {
		parts[i] = Part{Weight: r.Weight, Min: r.Min, Max: cmp.Or(r.Max, m.Count), Had: had[i]}
	}
	if m.Placement == model.PlacementCapacity {
		return Capacity(m.Count, parts, room)
	}
	return Divide(m.Count, parts)
}
