package summary

import (
	"encoding/base64"
	"encoding/json"

	"atoll/model"
)

// ParseToken reads the token of a page; "" is that of the first, which is nil.
func ParseToken(token string) (*Position, error) {
	if token == "" {
		return nil, nil
	}
	var parts [3]string
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		err = json.Unmarshal(b, &parts)
	}
	if err != nil {
		return nil, model.Invalidf("next_token", "next_token %q is not one that a list of all regions gave", token)
	}
	return &Position{model.RowKey{Namespace: parts[0], ID: parts[1]}, parts[2]}, nil
}

// String is the token of the page after the one that ends with the position. It
// names a row, not a number of rows, so that a page begins where the last one
// ended whichever regions answered it, and whatever came and went meanwhile.
func (p Position) String() string {
	b, err := json.Marshal([3]string{p.Namespace, p.ID, p.Region})
	if err != nil {
		panic("summary: " + err.Error()) // three strings can be encoded
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// Part is one region's rows for a page: as many as the page may have, or all
// that it has left.
type Part[R Row] struct {
	Region string
	Rows   []R
}

// Merge makes one page of what regions have: at most limit rows (0 does not
// bound them) in the order of namespace, id and region. The token is of the next
// page, "" when the parts have no more.
func Merge[R Row](parts []Part[R], limit int) (page []R, token string) {
	total := 0
	for _, p := range parts {
		total += len(p.Rows)
	}
	size := total
	if limit > 0 {
		size = min(limit, total)
	}
	page = make([]R, 0, size)
	at := make([]int, len(parts))
	var last Position
	for len(page) < size {
		best := -1
		var place Position
		for i, p := range parts {
			if at[i] == len(p.Rows) {
				continue
			}
			here := Position{p.Rows[at[i]].Key(), p.Region}
			if best < 0 || after(place, here) {
				best, place = i, here
			}
		}
		page = append(page, parts[best].Rows[at[best]])
		at[best]++
		last = place
	}
	if size < total {
		token = last.String()
	}
	return page, token
}
