// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// good are files, or rules of a file, without fault.
var good = []string{
	"version: 1\nrules:\n- {path: /, program: redact, whole: true}\n",
	"version: 1\nrules: [{path: /, program: redact, whole: true}]\nfail: open\nbudget: 10us\n",
	"---\nversion: 1\nrules: [{path: /, program: redact, whole: true}]\nbudget: 1s\n...\n",
	"{version: 1, rules: [{path: /, program: redact, whole: true}]}",
	"\ufeffversion: 1\nrules: [{path: /, program: redact, whole: true}]\n",
	rule("path: //a/./b/, program: redact, ranges: 0-9"),
	rule("path: /, program: redact, ranges: ['0x10 + 1K', 0-0], handler: mail, whole: false"),
	rule("path: /, program: prepend, match: '[]a-c]\\*', text: x"),
	rule("path: /, program: prepend, file: /etc/motd"),
	rule("path: /, program: split, patches: [{offset: 0, file: a}]"),
	rule("path: /, program: split, parts: a, size: 0"),
	rule("path: /, program: split, parts: [a, a], size: 9223372036854775807"),
	rule("path: /, program: select, clauses: [{match: x, hide: true, uid: 4294967294}, {match: y, skip: 1}, {match: z, layer: 3, or: leave}]"),
	rule("path: /, program: select, clauses: [{match: x, hide: true, gid: root, uid: '7', type: symlink, not: false}]"),
	rule("path: /, program: mine.o"),
	rule("path: /, program: /m, params: {a: -1, b: false, c: 18446744073709551615}, maps: {m: {}}"),
	"version: 1\nrules:\n" +
		"- {path: /a, program: select, clauses: [{match: x, deny: true}]}\n" +
		"- {path: /a, program: split, parts: a}\n" +
		"- {path: /b, program: redact, whole: true, match: a, name: 'redact:/b#2'}\n" +
		"- {path: /b, program: redact, whole: true, match: b}\n" +
		"- {path: /b, program: redact, whole: true, match: c}\n" +
		"- {path: /c, program: x.o}\n",
}

// rule is a file with one rule, in line 3.
func rule(s string) string { return "version: 1\nrules:\n- {" + s + "}\n" }

func TestGood(t *testing.T) {
	for _, text := range good {
		if _, err := Parse("p", "/dir", []byte(text), known); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	}
}

// bad are files and what is wrong with them.
var bad = []struct{ text, want string }{
	// the file
	{"", `p:1: the file is empty; begin it with "version: 1"`},
	{"# nothing\n", `p:1: the file is empty; begin it with "version: 1"`},
	{"---\n", `p:2: the file must be a mapping, this is nothing; write "key: value" lines, or {key: value}`},
	{"- a\n", `p:1: the file must be a mapping, this is a list; write "key: value" lines, or {key: value}`},
	{"a: 1\n\tb: 2\n", "p:2: found a tab character that violates indentation; indent with spaces"},
	{"a: [1\n", "p:2: did not find expected ',' or ']'; mend the YAML here or in the line before"},
	{"fail: open\nversions: 1\n", `p:1: version is missing; begin the file with "version: 1"` + "\n" +
		`p:1: rules is missing; add "rules:" and below it "- path: ..." for each rule` + "\n" +
		`p:2: unknown key "versions" in the file; did you mean version?`},
	{"version: 1\nversion: 1\nrules: [{path: /, program: redact, whole: true}]", "p:2: version is given twice, first in line 1; remove one"},
	{"version: 2\nrules: []\n", `p:1: the version is not one that this plyfs knows; write "version: 1"` + "\n" +
		"p:2: rules is empty; put something into it, or remove it"},
	{"version: '1'\nrules: x\n", `p:1: the version is not one that this plyfs knows; write "version: 1"` + "\n" +
		`p:2: rules must be a list, this is a string; write a line "- ..." for each member, or [a, b]`},
	{good[0] + "---\na: b\n", "p:4: a second document begins; remove it, a policy file is one document"},
	{good[0] + "---\na: [b\n", "p:6: did not find expected ',' or ']'; mend the YAML here or in the line before"},
	{good[0] + "fail: close\nbudget: 5\n", "p:4: fail cannot be \"close\"; did you mean closed?\n" +
		"p:5: budget is not a time from 10us to 1s; write for example 5ms"},
	{good[0] + "budget: 2s\n", "p:4: budget is not a time from 10us to 1s; write for example 5ms"},
	{good[0] + "budget: 9us\nfail: true\n", "p:4: budget is not a time from 10us to 1s; write for example 5ms\n" +
		"p:5: fail must be a string, this is true or false; put it in quotes"},
	{"a: &a [x]\nb: *a\nversion: 1\nrules: [{path: /, program: redact, whole: true}]\n",
		"p:1: anchors are not used here; remove &a, or put the word in quotes\n" +
			`p:1: unknown key "a" in the file; use one of version, rules, fail, budget` + "\n" +
			`p:2: aliases are not used here; write the value out, or put it in quotes: "*a"` + "\n" +
			`p:2: unknown key "b" in the file; use one of version, rules, fail, budget`},
	{"version: !!int 1\nrules: [{path: /, program: redact, whole: true}]\n", "p:1: tags are not used here; remove !!int, or put the word in quotes"},
	{rule("path: /, program: redact, whole: true, match: *.jpg"),
		`p:3: unknown anchor '.jpg' referenced; put words that begin with * or & in quotes: "*.jpg"`},
	{rule("path: /, program: redact, whole: true, match: [ * ]"),
		`p:3: did not find expected alphabetic or numeric character; put words that begin with * or & in quotes: "*.jpg"`},
	{"a: " + strings.Repeat("[", 40), "p:1: nested deeper than 32; no policy needs that"},

	// a rule
	{"version: 1\nrules:\n- a\n-\n- []\n",
		`p:3: a rule must be a mapping, this is a string; write "key: value" lines, or {key: value}` + "\n" +
			`p:4: a rule must be a mapping, this is nothing; write "key: value" lines, or {key: value}` + "\n" +
			`p:5: a rule must be a mapping, this is a list; write "key: value" lines, or {key: value}`},
	{rule(""), `p:3: path is missing; add it, "path: /" is the whole mount` + "\n" +
		"p:3: program is missing; add redact, prepend, split, select or the path of an object (./FILE.o)"},
	{rule("pth: /, path: /, program: redact, whole: true"), `p:3: unknown key "pth" in a rule; did you mean path?`},
	{rule("[a]: /, path: /, program: redact, whole: true"),
		`p:3: unknown key "" in a rule; use one of path, program, name, match, handler, ranges, whole, text, file, parts, base, patches, size, clauses, params, maps`},
	{rule("path: /, program: redact, whole: true, whole: true"), "p:3: whole is given twice, first in line 3; remove one"},
	{rule("path: a, program: redact, whole: true"), `p:3: path "a" is not absolute; begin it with /, which is the root of the mount`},
	{rule("path: /a/../b, program: redact, whole: true"), `p:3: path "/a/../b" has ".." in it; write the path without`},
	{rule(`path: "/a\0", program: redact, whole: true`), `p:3: path "/a\x00" has a zero byte; no name has one`},
	{rule("path: /" + strings.Repeat("x", 256) + ", program: redact, whole: true"),
		`p:3: path "/` + strings.Repeat("x", 79) + `"... is longer than a path or a name can be; no file has it`},
	{rule("path: , program: redact, whole: true"), "p:3: path must be a string, this is nothing; write one"},
	{rule("path: /, program: redcat, whole: true"), `p:3: there is no program "redcat"; did you mean redact, or the path of an object (./FILE.o)`},
	{rule("path: /, program: mine"), `p:3: there is no program "mine"; use one of redact, prepend, split, select, or the path of an object (./FILE.o)`},
	{rule("path: /, program: 7"), "p:3: program must be a string, this is a number; put it in quotes"},
	{rule("path: /, program: redact, whole: true, name: 2024-01-01"), "p:3: name must be a string, this is a date; put it in quotes"},
	{rule("path: /, program: redact, whole: true, name: ''"), "p:3: name is empty; write something, or remove it"},
	{rule(`path: /, program: redact, whole: true, name: "a\nb"`), `p:3: name has the control character '\n' in it; remove it`},
	{rule("path: /, program: redact, whole: true, name: " + strings.Repeat("x", 65)), `p:3: name "` + strings.Repeat("x", 65) + `" is longer than 64 bytes; shorten it`},

	// keys of other programs
	{rule("path: /, program: split, parts: a, ranges: 0-1"), "p:3: ranges belongs to redact, this rule's program is split; remove it, or name another program"},
	{rule("path: /, program: split, parts: a, match: x"), "p:3: match belongs to redact and prepend, this rule's program is split; remove it, or name another program"},
	{rule("path: /, program: prepend, text: a, handler: mail"), "p:3: handler belongs to redact and objects (./FILE.o), this rule's program is prepend; remove it, or name another program"},
	{rule("path: /, program: ./a.o, size: 1"), "p:3: size belongs to split, this rule's program is ./a.o; remove it, or name another program"},
	{rule("path: /, program: redact, whole: true, maps: {}"), "p:3: maps belongs to objects (./FILE.o), this rule's program is redact; remove it, or name another program"},

	// match
	{rule("path: /, program: redact, whole: true, match: []"), "p:3: match is empty; put something into it, or remove it"},
	{rule("path: /, program: redact, whole: true, match: [a, 404, '', 'a[b', 'a\\', a/b]"),
		"p:3: match must be a string, this is a number; put it in quotes\n" +
			`p:3: match: a pattern is empty; write "*" for all names` + "\n" +
			`p:3: match: pattern "a[b" has a [ without a good set behind it; close it with ], or write \[` + "\n" +
			`p:3: match: pattern "a\\" ends with a \; write \\ for a backslash` + "\n" +
			`p:3: match: pattern "a/b" has a /; patterns are of names, put the directory into path`},
	{rule("path: /, program: redact, whole: true, match: " + strings.Repeat("x", 64)), `p:3: match: pattern "` + strings.Repeat("x", 64) + `" is 64 bytes long; the most is 63`},
	{rule("path: /, program: redact, whole: true, match: [a" + strings.Repeat(",a", 32) + "]"), "p:3: match has 33 members, the most is 32; remove some"},

	// redact
	{rule("path: /, program: redact"), `p:3: redact needs ranges, handler or "whole: true"; add one`},
	{rule("path: /, program: redact, whole: false"), `p:3: "whole: false" redacts nothing; add ranges or handler, or remove the rule`},
	{rule("path: /, program: redact, whole: true, ranges: 1-2"), "p:3: whole leaves nothing for ranges or handler; remove it or them"},
	{rule("path: /, program: redact, whole: yes"), "p:3: whole must be true or false, this is a string; write true or false"},
	{rule("path: /, program: redact, handler: male"), `p:3: there is no handler "male"; did you mean mail?`},
	{rule("path: /, program: redact, ranges: [\n{offset: 1},\n{offset: x, length: 1, len: 2},\n7, 2-1, 1+0, [],\n{offset: 9223372036854775807, length: 1}, 9223372036854775808-1, 07-08, 1-x]"),
		"p:4: length is missing; add it\n" +
			`p:5: unknown key "len" in a range; use one of offset, length` + "\n" +
			`p:5: offset: "x" is no number; write for example 4096, 0x1000 or 4K` + "\n" +
			`p:6: "7" is no range; write FIRST-LAST, OFFSET+LENGTH or {offset: N, length: N}` + "\n" +
			`p:6: range "2-1" ends before it begins; swap its numbers` + "\n" +
			"p:6: the range is empty; give it a length of 1 or more, or remove it\n" +
			"p:6: a range must be a mapping or a string, this is a list; write FIRST-LAST, OFFSET+LENGTH or {offset: N, length: N}\n" +
			"p:7: the range ends beyond the largest file, 8388608T; make it shorter\n" +
			`p:7: "9223372036854775808" is too large; the largest file ends below 8388608T` + "\n" +
			`p:7: "07" begins with 0; leave the zeros out` + "\n" +
			`p:7: "x" is no number; write for example 4096, 0x1000 or 4K`},

	// prepend
	{rule("path: /, program: prepend"), "p:3: prepend needs text or file; add one"},
	{rule("path: /, program: prepend, text: a, file: b"), "p:3: prepend takes text or file, not both; remove one"},
	{rule("path: /, program: prepend, text: ''"), "p:3: text is empty; write something, or remove the rule"},
	{rule(`path: /, program: prepend, file: "a\0"`), `p:3: file has the control character '\x00' in it; remove it`},

	// split
	{rule("path: /, program: split, size: 1"), "p:3: split needs parts or patches; add them"},
	{rule("path: /, program: split, parts: a, patches: [{offset: 0, file: a}]"), "p:3: split takes parts or patches, not both; remove one"},
	{rule("path: /, program: split, parts: a, base: b"), "p:3: base belongs to patches, this rule has parts; remove it, or make it the first part"},
	{rule("path: /, program: split, parts: 'none/*'"), "p:3: parts: open /dir/none: no such file or directory; mend the name, or make the directory"},
	{rule("path: /, program: split, parts: '/*.none'"), `p:3: parts: no file matches "/*.none"; mend the pattern, or make the files`},
	{rule("path: /, program: split, parts: '*/a'"), `p:3: parts: "*/a" has a pattern in place of a directory; only the name behind the last / can be one`},
	{rule("path: /, program: split, parts: '/[a'"), `p:3: parts: pattern "[a" has a [ without a good set behind it; close it with ], or write \[`},
	{rule("path: /, program: split, parts: []"), "p:3: parts is empty; put something into it, or remove it"},
	{rule("path: /, program: split, parts: a, size: -1"), `p:3: size: "-1" is no number; write for example 4096, 0x1000 or 4K`},
	{rule("path: /, program: split, parts: a, size: true"), "p:3: size must be a number of bytes, this is true or false; write for example 4096 or 4K"},
	{rule("path: /, program: split, patches: [{}, {offset: 1, file: a, form: 1}, {offset: 8388607T, length: 2T, file: a}, {offset: 0, length: 0, file: a}, x]"),
		"p:3: file is missing; add it\np:3: offset is missing; add it\n" +
			`p:3: unknown key "form" in a patch; did you mean from?` + "\n" +
			"p:3: the range ends beyond the largest file, 8388608T; make it shorter\n" +
			"p:3: the range is empty; give it a length of 1 or more, or remove it\n" +
			`p:3: a patch must be a mapping, this is a string; write "key: value" lines, or {key: value}`},

	// select
	{rule("path: /, program: select"), "p:3: select needs clauses; add them"},
	{rule("path: /, program: select, clauses: [" + strings.Repeat("{match: a, hide: true},", 65) + "]"),
		"p:3: clauses has 65 members, the most is 64; put some together, or divide them between rules"},
	{clauses("{}"), `p:4: match is missing; add it, "*" matches all names` + "\np:4: the clause does nothing; add hide, layer, skip, show or deny"},
	{clauses("{match: a, hide: false}"), "p:4: hide can only be true; remove it"},
	{clauses("{match: a, hide: 1}"), "p:4: hide must be true or false, this is a number; write true or false"},
	{clauses("{match: a, hide: true, deny: true}"), "p:4: deny: the clause does hide already; remove one, or make two clauses"},
	{clauses("{match: a, hied: true}"), `p:4: unknown key "hied" in a clause; did you mean hide?` + "\n" +
		"p:4: the clause does nothing; add hide, layer, skip, show or deny"},
	{clauses("{match: a, hide: true, or: hide}"), "p:4: or belongs to layer, which this clause does not have; remove it"},
	{clauses("{match: a, layer: 1, or: show}"), `p:4: or cannot be "show"; use one of hide, leave`},
	{clauses("{match: a, layer: 4}"), "p:4: there is no lower layer 4; the mount has 3 of them, 1 is the topmost"},
	{clauses("{match: a, skip: [0, 63, x]}"), "p:4: there is no lower layer 0 that a program can name; use 1, the topmost, to 62\n" +
		"p:4: there is no lower layer 63 that a program can name; use 1, the topmost, to 62\n" +
		"p:4: a layer must be a number, this is a string; count the lower layers from the top, 1 is the topmost"},
	{clauses("{match: a, hide: true, not: true}"), "p:4: not is about uid and gid, of which there is none; add one, or remove it"},
	{clauses("{match: a, hide: true, type: fil}"), `p:4: type cannot be "fil"; did you mean file?`},
	{clauses("{match: a, hide: true, uid: no-such-user, gid: 2-1}"), `p:4: uid: "no-such-user" is not known on this host; write the number` + "\n" +
		`p:4: gid: range "2-1" ends before it begins; swap its numbers`},
	{clauses("{match: a, hide: true, uid: 4294967295, gid: true}"), `p:4: uid: "4294967295" is too large; the last id is 4294967294` + "\n" +
		"p:4: gid must be a number, a range or a name, this is true or false; write for example 1000, 1000-1999 or www-data"},
	{clauses("{match: a, hide: true, uid: -1, gid: 'a b'}"), `p:4: uid: "-1" is no id; write for example 1000, 1000-1999 or a name` + "\n" +
		`p:4: gid: "a b" is no name; write a number, a range or a name`},

	// objects
	{rule("path: /, program: ./a.o, params: {1a: 1, ply_abi: 1, b: x, c: 1.5, d: , e: 1, e: 2}"),
		`p:3: "1a" is no name that params of an object can have; write that of the source` + "\n" +
			`p:3: "ply_abi" is plyfs's own; remove it` + "\n" +
			`p:3: b: "x" is no number; write for example 4096, 0x1000 or 4K` + "\n" +
			"p:3: c must be a whole number, true or false, this is a number with a fraction; write for example 42, 4K or true\n" +
			"p:3: d must be a whole number, true or false, this is nothing; write for example 42, 4K or true\n" +
			"p:3: e is given twice, first in line 3; remove one"},
	{rule("path: /, program: ./a.o, params: {a: 18446744073709551616, b: -9223372036854775809}"),
		`p:3: a: "18446744073709551616" is too large; the largest number is 18446744073709551615` + "\n" +
			`p:3: b: "-9223372036854775809" is too small; the smallest number is -9223372036854775808`},
	{rule("path: /, program: ./a.o, params: 1, maps: [a]"),
		`p:3: params must be a mapping, this is a number; write "key: value" lines, or {key: value}` + "\n" +
			`p:3: maps must be a mapping, this is a list; write "key: value" lines, or {key: value}`},
	{rule("path: /, program: ./a.o, maps: {m: 1, n: {1: 2,\n0x1: 3, a: 1.5, [1]: 1, ['1']: 1, [1]: 2, {a: 1}: 1, {a: 1}: 2}}"),
		`p:3: map m must be a mapping, this is a number; write "key: value" lines, or {key: value}` + "\n" +
			"p:4: key 1 is given twice, first in line 3; remove one\n" +
			"p:4: keys and values of maps must be whole numbers, strings, true or false, this is a number with a fraction; write one of them\n" +
			"p:4: key [1,] is given twice, first in line 4; remove one\n" +
			`p:4: key {\"a\":1,} is given twice, first in line 4; remove one`},

	// rules together
	{two("path: /a, program: redact, whole: true, name: x", "path: /b, program: redact, whole: true, name: x"),
		`p:4: the rule is named "x" as that in line 3 is; give it another name`},
	{two("path: /a, program: redact, whole: true", "path: /a/, program: split, parts: a"),
		`p:4: the rule in line 3 and that in line 4 both govern "/a"; give both a match ("*": all names), remove one, or change its path`},
	{two("path: /a, program: redact, whole: true, match: a", "path: /a, program: prepend, text: a"),
		`p:4: the rule in line 3 and that in line 4 both govern "/a"; give both a match ("*": all names), remove one, or change its path`},
	{two("path: /a, program: select, clauses: [{match: a, hide: true}]", "path: /a, program: select, clauses: [{match: a, hide: true}]"),
		`p:4: the rule in line 3 and that in line 4 both govern "/a"; remove one, put them into one, or change the path of one`},
	{two("path: /a, program: select, clauses: [{match: a, hide: true}]", "path: /a, program: ./a.o"),
		`p:4: the rule in line 3 and that in line 4 both govern "/a"; remove one, put them into one, or change the path of one`},
}

// clauses is a file with one clause, in line 4.
func clauses(s string) string { return rule("path: /, program: select, clauses: [\n" + s + "]") }

// two is a file with two rules, in lines 3 and 4.
func two(a, b string) string { return rule(a) + "- {" + b + "}\n" }

func TestBad(t *testing.T) {
	for _, c := range bad {
		f, err := Parse("p", "/dir", []byte(c.text), known)
		var errs Errors
		switch {
		case f != nil || !errors.As(err, &errs):
			t.Errorf("%s\nno error", c.text)
		case err.Error() != c.want:
			t.Errorf("%s\n got %s\nwant %s", c.text, strings.ReplaceAll(err.Error(), "\n", "\n     "), strings.ReplaceAll(c.want, "\n", "\n     "))
		}
	}
}

// TestNoHandlers has a mend of its own.
func TestNoHandlers(t *testing.T) {
	_, err := Parse("p", "/", []byte(rule("path: /, program: redact, handler: a")), Known{})
	if want := `p:3: there is no handler "a", nor any other; remove it`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestMaxErrors reports the first 20.
func TestMaxErrors(t *testing.T) {
	_, err := Parse("p", "/", []byte("version: 1\nrules:\n"+strings.Repeat("- a\n", 100)), known)
	errs, _ := err.(Errors)
	if len(errs) != maxErrors || errs[19].Line != 22 || errs[19].Column != 3 {
		t.Errorf("got %v", err)
	}
}

// TestMost counts files of parts and patches.
func TestMost(t *testing.T) {
	dir := trustedDir(t)
	var patches strings.Builder
	for i := range maxFiles + 1 {
		name := fmt.Sprintf("f%04d", i)
		write(t, dir+"/"+name, "")
		fmt.Fprintf(&patches, "{offset: 0, file: %s}, ", name)
	}
	checkMost(t, dir, "parts: 'f*'", "p:3: parts are more than 4096 files; put some together")
	checkMost(t, dir, "parts: 'f0*'", "")
	checkMost(t, dir, "parts: [f0*, f1*, f2*, f3*, f400*]", "")
	checkMost(t, dir, "parts: ["+strings.Repeat("a,", maxFiles+1)+"]", "p:3: parts has 4097 members, the most is 4096; remove some")
	checkMost(t, dir, "patches: ["+patches.String()+"]", "p:3: patches are of 4097 files, the most is 4096; put some together")
	checkMost(t, dir, "patches: ["+strings.Repeat("{offset: 0, file: a},", maxPatches+1)+"]", "p:3: patches has 65537 members, the most is 65536; remove some")
}

// checkMost checks what is wrong with a rule of the program split.
func checkMost(t *testing.T, dir, keys, want string) {
	t.Helper()
	got := ""
	if _, err := Parse("p", dir, []byte(rule("path: /, program: split, "+keys)), known); err != nil {
		got = err.Error()
	}
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestLaughs reads a billion laughs without expanding them, and other large
// files that are hard to read in reasonable time.
func TestLaughs(t *testing.T) {
	const size = 1 << 17
	var b bytes.Buffer
	b.WriteString("a0: &a0 [lol]\n")
	for i := 1; i < 20; i++ {
		c := string(rune('a' + i))
		p := string(rune('a' + i - 1))
		if i == 1 {
			p = "a0"
		}
		b.WriteString(c + ": &" + c + " [" + strings.Repeat("*"+p+", ", 30) + "]\n")
	}
	files := []string{b.String(), `"` + strings.Repeat("x", maxFile-1)}
	for _, s := range []string{"[", "- ", "{", "a: ", "? ", "&a ", "!a ", "*a ", "# \n", "- a\n", "[],", "a,", "\n", " ", "--- a\n", "'", "|\n", "\t", "- &a x\n", "\\", "%"} {
		files = append(files, strings.Repeat(s, size/len(s)), "a: ["+strings.Repeat(s, size/len(s)))
	}
	for _, text := range files {
		began := time.Now()
		if _, err := Parse("p", "/", []byte(text), known); err == nil {
			t.Errorf("no error for %q", text[:20])
		}
		if d := time.Since(began); d > time.Minute {
			t.Errorf("%q took %v", text[:20], d)
		} else {
			t.Logf("%q %v", text[:20], d)
		}
	}
}

// FuzzParse finds no file that makes Parse panic, or that has neither result
// nor errors that are lines of their own.
func FuzzParse(f *testing.F) {
	for _, text := range good {
		f.Add([]byte(text))
	}
	for _, c := range bad {
		f.Add([]byte(c.text))
	}
	example, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	dir := exampleDir(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse("p", dir, data, known)
		if err == nil {
			checkParsed(t, file)
			again, err := Parse("p", dir, data, known)
			if err != nil || !reflect.DeepEqual(file, again) {
				t.Fatalf("once %v, then %v, %v", file, again, err)
			}
			return
		}
		errs, ok := err.(Errors)
		if file != nil || !ok || len(errs) == 0 || len(errs) > maxErrors {
			t.Fatalf("%v, %v", file, err)
		}
		for _, e := range errs {
			if e.Line < 1 || strings.ContainsAny(e.Error(), "\n\r\x00") || !strings.Contains(e.Text, "; ") {
				t.Fatalf("%q", e.Error())
			}
		}
	})
}

// checkParsed checks what a good file always is.
func checkParsed(t *testing.T, f *File) {
	names := make(map[string]bool)
	for i := range f.Rules {
		r := &f.Rules[i]
		if r.Line < 1 || r.Name == "" || names[r.Name] || !strings.HasPrefix(r.Path, "/") || r.Program == "" {
			t.Fatalf("%+v", r)
		}
		names[r.Name] = true
		for _, c := range r.Clauses {
			if c.Action == 0 || c.Match == "" {
				t.Fatalf("%+v", c)
			}
		}
		if r.Program == Split {
			_, _ = Layout(r, func(string) (int64, error) { return 1000, nil })
		}
	}
	if len(f.Rules) == 0 {
		t.Fatal("no rules")
	}
}
