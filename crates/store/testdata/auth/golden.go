// Writes the golden files beside it: what etcd's interval tree and Go's sort answer to drawn questions.
// Run it in a module that requires go.etcd.io/etcd/pkg/v3 v3.7.1: go run golden.go DIRECTORY
package main

import (
	"bufio"
	"fmt"
	"os"
	"sort"

	"go.etcd.io/etcd/pkg/v3/adt"
)

type draw uint64

func (d *draw) below(n uint64) uint64 {
	*d = *d*6364136223846793005 + 1442695040888963407
	return (uint64(*d) >> 33) % n
}

func (d *draw) key() []byte {
	k := make([]byte, d.below(3))
	for i := range k {
		k[i] = 'a' + byte(d.below(6))
	}
	return k
}

func intervals(w *bufio.Writer) {
	for seed := uint64(1); seed <= 200; seed++ {
		d := draw(seed)
		tree := adt.NewIntervalTree()
		for n := 1 + d.below(40); n > 0; n-- {
			begin := d.key()
			tree.Insert(adt.NewBytesAffineInterval(begin, d.key()), struct{}{})
		}
		fmt.Fprintf(w, "%d ", seed)
		for n := 0; n < 60; n++ {
			begin := d.key()
			answer := 0
			if tree.Contains(adt.NewBytesAffineInterval(begin, d.key())) {
				answer++
			}
			if tree.Intersects(adt.NewBytesAffinePoint(begin)) {
				answer += 2
			}
			fmt.Fprint(w, answer)
		}
		fmt.Fprintln(w)
	}
}

type items [][2]uint64

func (s items) Len() int           { return len(s) }
func (s items) Less(i, j int) bool { return s[i][0] < s[j][0] }
func (s items) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }

func sorts(w *bufio.Writer) {
	for seed := uint64(1); seed <= 300; seed++ {
		length := seed * 2
		d := draw(seed)
		var s items
		for n := uint64(0); n < length; n++ {
			s = append(s, [2]uint64{d.below(length/3 + 1), n})
			if d.below(4) != 0 {
				sort.Sort(s)
			}
		}
		sort.Sort(s)
		sum := uint64(0)
		for _, item := range s {
			sum = sum*1000003 + item[1]
		}
		fmt.Fprintln(w, seed, length, sum)
	}
}

func main() {
	for name, write := range map[string]func(*bufio.Writer){"intervals.txt": intervals, "sort.txt": sorts} {
		f, err := os.Create(os.Args[1] + "/" + name)
		if err != nil {
			panic(err)
		}
		w := bufio.NewWriter(f)
		write(w)
		w.Flush()
		f.Close()
	}
}
