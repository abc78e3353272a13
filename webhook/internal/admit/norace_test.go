//go:build !race

package admit_test

const race = false
