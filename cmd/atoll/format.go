package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ryanuber/columnize"
)

// list lays rows of "a|b|c" out in columns.
func list(rows []string) string {
	c := columnize.DefaultConfig()
	c.Glue, c.NoTrim = "  ", false
	c.Empty = "<none>"
	return columnize.Format(rows, c)
}

// pairs lays rows of "key|value" out as "key = value".
func pairs(rows []string) string {
	c := columnize.DefaultConfig()
	c.Glue, c.Empty = " = ", "<none>"
	return columnize.Format(rows, c)
}

// cell is a text that may stand in a column.
func cell(s string) string { return strings.NewReplacer("|", "/", "\n", " ", "\r", " ").Replace(s) }

func title(s string) string { return "\n" + s }

func printJSON(w io.Writer, v any) error {
	b, err := json.MarshalIndent(v, "", "    ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, string(b))
	return err
}

func date(nanos int64) string {
	if nanos == 0 {
		return ""
	}
	return time.Unix(0, nanos).Format(time.RFC3339)
}

func ago(nanos int64) string {
	if nanos == 0 {
		return ""
	}
	return age(time.Since(time.Unix(0, nanos))) + " ago"
}

// age is a duration in its two largest units.
func age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return d.Truncate(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
