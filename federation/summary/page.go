package summary

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"iter"
	"slices"

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

// Part is one region's rows for a page, in order.
type Part[R Row] struct {
	Region string
	Rows   iter.Seq2[R, error]
}

// Rows are a part of rows that are there.
func Rows[R Row](rows []R) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		for _, row := range rows {
			if !yield(row, nil) {
				return
			}
		}
	}
}

// Check returns what is wrong with rows that another server answered, nil when they
// are what a page can be made of: each is there, they are in order, and none was
// had already.
func Check[R Row](rows []R, region string, had *Position) error {
	var none R
	for i, row := range rows {
		switch {
		case any(row) == any(none):
			return fmt.Errorf("row %d is missing", i)
		case i > 0 && !less(rows[i-1].Key(), row.Key()):
			return fmt.Errorf("row %d, %q, is not in order", i, row.Key().ID)
		case had != nil && !after(Position{row.Key(), region}, *had):
			return fmt.Errorf("row %d, %q, is of a page before", i, row.Key().ID)
		}
	}
	return nil
}

// Take collects at most limit rows.
func Take[R Row](rows iter.Seq2[R, error], limit int) (out []R, err error) {
	for row, err := range rows {
		if err != nil {
			return nil, err
		}
		if out = append(out, row); len(out) == limit {
			break
		}
	}
	return out, nil
}

// head is the row that a part has next.
type head[R Row] struct {
	place Position
	row   R
	next  func() (R, error, bool)
}

// advance finds the part's next row; it reports whether there is one.
func (h *head[R]) advance() (bool, error) {
	row, err, more := h.next()
	if err != nil || !more {
		return false, err
	}
	h.row, h.place.RowKey = row, row.Key()
	return true, nil
}

// Merge makes one page of what regions have: at most limit rows in the order of
// namespace, id and region. It takes no more of a part than it needs. The token is
// of the next page, "" when the parts have no more.
func Merge[R Row](parts []Part[R], limit int) (page []R, token string, err error) {
	var heads []*head[R]
	for _, p := range parts {
		next, stop := iter.Pull2(p.Rows)
		defer stop()
		h := &head[R]{place: Position{Region: p.Region}, next: next}
		if more, err := h.advance(); err != nil {
			return nil, "", err
		} else if more {
			heads = append(heads, h)
		}
	}
	var last Position
	for len(heads) > 0 {
		first := slices.MinFunc(heads, func(a, b *head[R]) int {
			if after(a.place, b.place) {
				return 1
			}
			return -1
		})
		if len(page) == limit {
			return page, last.String(), nil
		}
		page, last = append(page, first.row), first.place
		more, err := first.advance()
		if err != nil {
			return nil, "", err
		}
		if !more {
			heads = slices.DeleteFunc(heads, func(h *head[R]) bool { return h == first })
		}
	}
	return page, "", nil
}
