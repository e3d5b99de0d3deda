// Package nearest finds the word that somebody most likely meant.
package nearest

import "slices"

// Word returns the word of known that is nearest to word by Levenshtein's
// distance, the first in order of those equally near; "" when none is within a
// third of word's length, two letters at least.
func Word(word string, known []string) string {
	best, score := "", max(len(word)/3, 2)+1
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := distance(word, k); d < score {
			best, score = k, d
		}
	}
	return best
}

func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
