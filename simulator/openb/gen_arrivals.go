// Writes the arrival order of one published run: a seeded shuffle of the name-sorted trace, then uniform resampling from
// the same list until what is asked of GPUs passes RATIO x capacity. In Go, because the published runs took their
// random numbers from its math/rand.
// usage: go run gen_arrivals.go PODS.csv NODES.csv SEED RATIO [RANKS.txt] > ORDER.txt
// ORDER: one trace row index per arrival.  RANKS: for each node (sorted by name) its tie-break rank; the smallest wins.
package main

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strconv"
)

type pod struct {
	name      string
	num, each int64
	row       int
}

func rows(path string) ([][]string, map[string]int) {
	f, err := os.Open(path)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	r, err := csv.NewReader(f).ReadAll()
	if err != nil {
		panic(err)
	}
	col := map[string]int{}
	for i, c := range r[0] {
		col[c] = i
	}
	return r[1:], col
}

func n(s string) int64 {
	if s == "" {
		return 0
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		panic(err)
	}
	return int64(v)
}

func main() {
	seed, _ := strconv.ParseInt(os.Args[3], 10, 64)
	ratio, _ := strconv.ParseFloat(os.Args[4], 64)
	pr, pc := rows(os.Args[1])
	nr, nc := rows(os.Args[2])
	var cap int64
	for _, r := range nr {
		cap += 1000 * n(r[nc["gpu"]])
	}
	pods := make([]pod, 0, len(pr))
	var total int64
	for i, r := range pr {
		p := pod{r[pc["name"]], n(r[pc["num_gpu"]]), n(r[pc["gpu_milli"]]), i}
		if p.num == 0 {
			p.each = 0
		} else if p.each > 1000 {
			p.each = 1000
		}
		pods = append(pods, p)
		total += p.num * p.each
	}
	sort.Slice(pods, func(i, j int) bool { return pods[i].name < pods[j].name })
	order := append([]pod(nil), pods...)
	rng := rand.New(rand.NewSource(seed))
	rng.Int() // the published runs draw one number (for a log line) before shuffling
	rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	goal := ratio * float64(cap)
	if float64(total) > goal {
		for float64(total) > goal {
			i := rng.Intn(len(order))
			total -= order[i].num * order[i].each
			order = append(order[:i], order[i+1:]...)
		}
	} else if float64(total) < goal {
		for {
			p := pods[rng.Intn(len(pods))]
			if float64(total+p.each) > goal {
				break
			}
			total += p.num * p.each
			order = append(order, p)
		}
	}
	if len(os.Args) > 5 {
		f, err := os.Create(os.Args[5])
		if err != nil {
			panic(err)
		}
		for i := 0; i < 10; i++ {
			rng.Int63() // ten draws lie between arrivals and node ranks in the published runs (found by matching BestFit, seed 42)
		}
		for _, r := range rng.Perm(len(nr)) {
			fmt.Fprintln(f, r)
		}
		f.Close()
	}
	w := bufio.NewWriter(os.Stdout)
	defer w.Flush()
	for _, p := range order {
		fmt.Fprintln(w, p.row)
	}
}
