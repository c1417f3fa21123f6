// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"strings"
)

// option is one item of -o: name or name=value.
type option struct {
	name     string
	value    string // escapes kept: the option's own parser decodes them
	hasValue bool
	quoted   bool // the value was written in quotes, which are off
}

// The grammar of -o, as in mount(8) and libfuse:
//
//	options = option *( "," option )
//	option  = name [ "=" value ]
//	value   = DQUOTE *any DQUOTE          commas inside are plain
//	        | *( plain | "\" escaped )
//	escaped = "," | ":" | "\" | 3 octal digits
//
// Empty items are skipped, as engines leave such commas behind.

// splitOptions cuts the argument of -o into options.
func splitOptions(s string) ([]option, error) {
	var list []option
	for s != "" {
		item, rest, err := nextOption(s)
		if err != nil {
			return nil, err
		}
		if item.name != "" {
			list = append(list, item)
		} else if item.hasValue {
			return nil, usagef("option %q has no name", "="+item.value)
		}
		s = rest
	}
	return list, nil
}

// nextOption cuts the first option off.
func nextOption(s string) (o option, rest string, err error) {
	i := strings.IndexAny(s, ",=")
	if i < 0 {
		return option{name: s}, "", nil
	}
	o.name = s[:i]
	if s[i] == ',' {
		return o, s[i+1:], nil
	}
	o.hasValue = true
	if s = s[i+1:]; strings.HasPrefix(s, `"`) {
		o.quoted = true
		o.value, rest, err = cutQuoted(o.name, s[1:])
		return o, rest, err
	}
	o.value, rest, err = cutPlain(o.name, s)
	return o, rest, err
}

// cutQuoted cuts a value up to the closing quote.
func cutQuoted(name, s string) (value, rest string, err error) {
	value, rest, ok := strings.Cut(s, `"`)
	if !ok {
		return "", "", usagef("option %s: the quote is not closed", name)
	}
	if rest != "" && rest[0] != ',' {
		return "", "", usagef("option %s: %q follows the closing quote; put a comma between options", name, rest)
	}
	return value, strings.TrimPrefix(rest, ","), nil
}

// cutPlain cuts a value up to the next comma that has no backslash.
func cutPlain(name, s string) (value, rest string, err error) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ',':
			return s[:i], s[i+1:], nil
		case '\\':
			if i++; i == len(s) {
				return "", "", usagef(`option %s: a backslash at the end; write \\ for a backslash`, name)
			}
		}
	}
	return s, "", nil
}

// splitPath cuts a value at the colons that have no backslash and decodes
// each part.
func splitPath(o option) ([]string, error) {
	if o.quoted {
		return strings.Split(o.value, ":"), nil
	}
	var parts []string
	start := 0
	for i := 0; i <= len(o.value); i++ {
		if i < len(o.value) && o.value[i] == '\\' {
			i++
			continue
		}
		if i < len(o.value) && o.value[i] != ':' {
			continue
		}
		p, err := decode(o.name, o.value[start:min(i, len(o.value))])
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
		start = i + 1
	}
	return parts, nil
}

// text decodes the whole value.
func (o option) text() (string, error) {
	if o.quoted {
		return o.value, nil
	}
	return decode(o.name, o.value)
}

// decode takes the escapes away.
func decode(name, s string) (string, error) {
	if strings.IndexByte(s, '\\') < 0 {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		c, n := unescape(s[i+1:])
		if n == 0 {
			return "", usagef(`option %s: bad escape in %q; the escapes are \: \, \\ and \ooo (octal)`, name, s)
		}
		b.WriteByte(c)
		i += n
	}
	return b.String(), nil
}

// unescape reads what follows a backslash: the byte and the length, 0 if bad.
// Octal digits are what libfuse and fstab write.
func unescape(s string) (byte, int) {
	if s == "" {
		return 0, 0
	}
	switch c := s[0]; {
	case c == ':' || c == ',' || c == '\\':
		return c, 1
	case len(s) >= 3 && c <= '3' && isOctal(c) && isOctal(s[1]) && isOctal(s[2]):
		v := (c-'0')<<6 | (s[1]-'0')<<3 | (s[2] - '0')
		if v == 0 {
			return 0, 0
		}
		return v, 3
	}
	return 0, 0
}

func isOctal(c byte) bool { return c >= '0' && c <= '7' }

// escapeOption writes a path so that the parser gives it back.
func escapeOption(p string) string {
	return strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`).Replace(p)
}

// nearest is the known option that is most like name, "" if none is.
func nearest(name string, known []string) string {
	best, bestDistance := "", 1+len(name)/3
	for _, k := range known {
		if d := distance(name, k); d <= bestDistance && (best == "" || d < bestDistance) {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is the Levenshtein distance in bytes.
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
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
