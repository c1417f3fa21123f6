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
	"strconv"
	"strings"
	"testing"
)

// TestCutPoints stops every operation between any two of its steps, by a kill
// or a power cut, and looks at what the next mount makes of it.
//
// Ordinarily each point is cut in each way once on ext4, in operations of which
// as many as possible have a turn. PLYFS_CUTPOINTS=all cuts every operation at
// each passing of each point in every way, on all file systems.
func TestCutPoints(t *testing.T) {
	if os.Getenv("PLYFS_CUTPOINTS") == "all" {
		forCutImages(t, func(t *testing.T, i *cutImage) { cutEach(t, i, func(cutCell) bool { return true }) })
		return
	}
	plan := cutPlan{}
	cutEach(t, newCutImage(t, "ext4", 128), plan.take)
}

// A cutCell is one cut of one operation.
type cutCell struct {
	op    string
	point CutPoint
	nth   int // how often the point was passed before
	way   cutWay
}

// A cutPlan remembers which ways of cutting each point had their turn.
type cutPlan map[CutPoint]map[cutWay]int

// take tells whether a cell is worth its time.
func (p cutPlan) take(c cutCell) bool {
	if p[c.point] == nil {
		p[c.point] = map[cutWay]int{}
	}
	had := p[c.point]
	if had[c.way] > 0 {
		return false
	}
	had[c.way]++
	return true
}

// cutEach cuts the operations at their points in those ways that take wants.
func cutEach(t *testing.T, i *cutImage, take func(cutCell) bool) {
	reached, ran, cells := map[CutPoint]bool{}, 0, 0
	for k := range cutCases {
		c := &cutCases[k]
		t.Run(c.name, func(t *testing.T) {
			ran++
			b := newCutBench(t, i, c)
			passed := map[CutPoint]int{}
			for _, p := range b.trace(t) {
				nth := passed[p]
				passed[p]++
				reached[p] = true
				for _, w := range cutWays {
					if take(cutCell{c.name, p, nth, w}) {
						cells++
						t.Run(fmt.Sprintf("%s, %d, %s", p, nth+1, w), func(t *testing.T) { b.check(t, p, nth, w) })
					}
				}
			}
		})
	}
	t.Logf("%d operations, %d points, %d cuts", ran, len(reached), cells)
	if ran == len(cutCases) && !t.Failed() {
		wantReached(t, reached)
	}
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
