// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/layers"
)

// TestCutPoints stops every operation between any two of its steps, by a kill
// or a power cut, and looks at what the next mount makes of it.
//
// Ordinarily each point is cut twice, on ext4. PLYFS_CUTPOINTS=all cuts every
// operation at each passing of each point in every way, on all file systems:
// that takes a quarter of an hour and more.
func TestCutPoints(t *testing.T) {
	if os.Getenv("PLYFS_CUTPOINTS") == "all" {
		forCutImages(t, func(t *testing.T, i *cutImage) { wantReached(t, runCuts(t, i, everyCut)) })
		return
	}
	wantReached(t, runCuts(t, newCutImage(t, "ext4", 128), someCuts))
}

// TestCutPointsWithoutXattrs does the same where upper has no xattrs, ordinarily
// at the steps of the store that keeps plyfs' own.
func TestCutPointsWithoutXattrs(t *testing.T) {
	choose := cutsOf(layers.StoreWritten, layers.StoreNamed, layers.StoreDropped)
	if os.Getenv("PLYFS_CUTPOINTS") == "all" {
		choose = everyCut
	}
	i := newCutImage(t, "ext4", 128)
	i.noXattrs = true
	reached := runCuts(t, i, choose)
	for _, s := range []layers.AttrStoreStep{layers.StoreWritten, layers.StoreNamed, layers.StoreDropped} {
		if !reached[CutPoint(s)] {
			t.Errorf("no operation passes %q", s)
		}
	}
}

// cutsOf wants one cut of each operation that passes one of the store's steps
// for the first time, and of each such step, the ways in turn.
func cutsOf(steps ...layers.AttrStoreStep) func([]cutTrace) []cutTrace {
	return func(traces []cutTrace) []cutTrace {
		out := make([]cutTrace, len(traces))
		way := 0
		for i, trace := range traces {
			for _, c := range trace {
				if c.nth == 0 && slices.Contains(steps, layers.AttrStoreStep(c.point)) {
					c.way = cutWays[way%len(cutWays)]
					out[i] = append(out[i], c)
					way++
				}
			}
		}
		return out
	}
}

// A cutCell is one cut of an operation: at a point that it has passed nth times
// before.
type cutCell struct {
	point CutPoint
	nth   int
	way   cutWay
}

// A cutTrace is the points that an operation passes, in turn.
type cutTrace []cutCell

// everyCut wants all cuts of every operation.
func everyCut(traces []cutTrace) (out []cutTrace) {
	for _, trace := range traces {
		var all cutTrace
		for _, c := range trace {
			for _, c.way = range cutWays {
				all = append(all, c)
			}
		}
		out = append(out, all)
	}
	return out
}

// someCuts wants two cuts of each point, in two of the operations that pass it:
// one after which all must be there, and one that takes what was not synced.
func someCuts(traces []cutTrace) []cutTrace {
	ops := map[CutPoint][]int{}
	var points []CutPoint // as they are met first
	for op, trace := range traces {
		for _, c := range trace {
			if c.nth > 0 {
				continue
			}
			if ops[c.point] == nil {
				points = append(points, c.point)
			}
			ops[c.point] = append(ops[c.point], op)
		}
	}
	turns := [][2]cutWay{{cutKill, cutNames}, {cutAll, cutNothing}, {cutKill, cutNothing}, {cutAll, cutNames}}
	out := make([]cutTrace, len(traces))
	for i, p := range points {
		pass := ops[p]
		for n, way := range turns[i%len(turns)] {
			op := pass[(i+n*len(pass)/2)%len(pass)]
			out[op] = append(out[op], cutCell{p, 0, way})
		}
	}
	return out
}

// runCuts finds the points that the operations pass and makes the cuts that
// choose wants.
func runCuts(t *testing.T, i *cutImage, choose func([]cutTrace) []cutTrace) (reached map[CutPoint]bool) {
	reached = map[CutPoint]bool{}
	var traces []cutTrace
	var benches []*cutBench
	for k := range cutCases {
		b := newCutBench(t, i, &cutCases[k])
		var trace cutTrace
		passed := map[CutPoint]int{}
		for _, p := range b.trace(t) {
			trace = append(trace, cutCell{point: p, nth: passed[p]})
			passed[p]++
			reached[p] = true
		}
		benches, traces = append(benches, b), append(traces, trace)
	}
	cuts := 0
	for k, cells := range choose(traces) {
		t.Run(benches[k].name, func(t *testing.T) {
			for _, c := range cells {
				t.Run(fmt.Sprintf("%s, %d, %s", c.point, c.nth+1, c.way), func(t *testing.T) { benches[k].check(t, c) })
			}
		})
		cuts += len(cells)
	}
	t.Logf("%d operations, %d points, %d cuts", len(traces), len(reached), cuts)
	return reached
}

// wantReached fails for points that no case has passed.
func wantReached(t *testing.T, reached map[CutPoint]bool) {
	t.Helper()
	for _, dir := range cutDirs {
		for _, value := range declaredCutPoints(t, dir) {
			if !reached[CutPoint(value)] {
				t.Errorf("no operation passes %q", value)
			}
		}
	}
}

// cutDirs are the packages that have cut points.
var cutDirs = []string{".", "journal"}

// TestCutPointsAreDeclaredAndUsed reads the source: at is called with declared
// constants only, and each of them is used, with a value of its own.
func TestCutPointsAreDeclaredAndUsed(t *testing.T) {
	values := map[string]string{}
	for _, dir := range cutDirs {
		declared := declaredCutPoints(t, dir)
		for name, value := range declared {
			if other, twice := values[value]; twice {
				t.Errorf("%s and %s are both %q", name, other, value)
			}
			values[value] = name
		}
		used := map[string]bool{}
		for pos, arg := range callsOfAt(t, dir) {
			if declared[arg] == "" {
				t.Errorf("%s: at(%s) is not called with a constant of cutpoint.go", pos, arg)
			}
			used[arg] = true
		}
		for name := range declared {
			if !used[name] {
				t.Errorf("%s/cutpoint.go: %s is never used", dir, name)
			}
		}
	}
	if len(values) < 50 {
		t.Errorf("only %d points are declared: is the source read?", len(values))
	}
}

// declaredCutPoints are the constants of type CutPoint of a package, with
// their values.
func declaredCutPoints(t *testing.T, dir string) map[string]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, "cutpoint.go"), nil, 0)
	must(t, err)
	out := map[string]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 {
			return true
		}
		typ, ok := v.Type.(*ast.Ident)
		lit, isLit := v.Values[0].(*ast.BasicLit)
		if ok && isLit && typ.Name == "CutPoint" {
			out[v.Names[0].Name], err = strconv.Unquote(lit.Value)
			must(t, err)
		}
		return true
	})
	return out
}

// callsOfAt are the arguments of the calls of at, by where they are.
func callsOfAt(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	must(t, err)
	out := map[string]string{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, name, nil, 0)
		must(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 1 {
				return true
			}
			if fun, ok := call.Fun.(*ast.SelectorExpr); ok && fun.Sel.Name == "at" {
				arg := "?"
				if id, ok := call.Args[0].(*ast.Ident); ok {
					arg = id.Name
				}
				out[set.Position(call.Pos()).String()] = arg
			}
			return true
		})
	}
	return out
}
