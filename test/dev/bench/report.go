package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
)

// samples are numbers by peer and column, one of each round.
type samples map[string]map[string][]float64

func (s samples) add(peer string, values map[string]float64) {
	if s[peer] == nil {
		s[peer] = map[string][]float64{}
	}
	for column, v := range values {
		s[peer][column] = append(s[peer][column], v)
	}
}

func median(of []float64) float64 {
	if len(of) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(of))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// ratio is the median of the sidecar's number divided by that of the peer, round by round.
func (s samples) ratio(peer, column string) (float64, bool) {
	a, b := s[ours][column], s[peer][column]
	var all []float64
	for i := range min(len(a), len(b)) {
		if b[i] > 0 {
			all = append(all, a[i]/b[i])
		}
	}
	return median(all), len(all) > 0 && peer != ours
}

// table is a figure in Markdown: ratios first, then medians, then the range.
func (f figure) table(peers []peer, s samples) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n%s\n\n| |", f.title, f.method)
	for _, c := range f.columns {
		fmt.Fprintf(&b, " %s: ratio | %s, %s (range) |", c.name, c.name, c.unit)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|---|", len(f.columns)) + "\n")
	for _, p := range peers {
		if s[p.name] == nil {
			continue
		}
		fmt.Fprintf(&b, "| %s |", p.name)
		for _, c := range f.columns {
			v := s[p.name][c.name]
			if len(v) == 0 {
				b.WriteString(" | – |")
				continue
			}
			if r, ok := s.ratio(p.name, c.name); ok {
				fmt.Fprintf(&b, " %.2f × |", r)
			} else {
				b.WriteString(" |")
			}
			fmt.Fprintf(&b, " %s (%s–%s) |", number(median(v)), number(slices.Min(v)), number(slices.Max(v)))
		}
		b.WriteString("\n")
	}
	for _, c := range f.columns {
		if c.goal != "" {
			fmt.Fprintf(&b, "\nGoal for %s: %s.", c.name, c.goal)
		}
	}
	b.WriteString("\n\n")
	return b.String()
}

// number has three significant digits.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// rewrite puts text between the marks of a page.
func rewrite(page, text string) error {
	const begin, end = "<!-- begin: generated -->\n", "<!-- end: generated -->"
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	head, rest, ok := bytes.Cut(old, []byte(begin))
	_, tail, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return fmt.Errorf("%s has no %s", page, strings.TrimSpace(begin))
	}
	return os.WriteFile(page, slices.Concat(head, []byte(begin), []byte(text), []byte(end), tail), 0o644)
}
