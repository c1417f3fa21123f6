// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package location

import (
	"bytes"
	"strings"
)

// scan is the walk through the elements of an XMP packet.
type scan struct {
	b    []byte
	at   int
	open []element
	shut bool // the last tag ended an element

	gone  []span // what holds location
	space []span // between elements: nobody misses it
	odd   bool   // not plain XML, or not what every reader reads alike
}

// element is one whose end tag has not come yet.
type element struct {
	name  string
	from  int
	other bool // holds something that is no location
	lost  bool // holds location
}

// run walks through the packet.
func (x *scan) run() {
	x.odd = bytes.Contains(x.b, []byte("nodeID"))
	for !x.odd {
		i := bytes.IndexByte(x.b[x.at:], '<')
		if i < 0 {
			break
		}
		x.text(span{x.at, x.at + i})
		x.at += i
		x.tag()
	}
	x.odd = x.odd || len(x.open) > 0
}

// text takes the text between two tags.
func (x *scan) text(p span) {
	t := x.b[p.from:p.to]
	switch {
	case len(bytes.Trim(t, " \t\r\n\x00")) > 0:
		x.other()
	case len(t) > 0 && p.from > 0 && (x.shut || !bytes.HasPrefix(x.b[p.to:], []byte("</"))):
		x.space = append(x.space, p)
	}
}

// other says that the innermost element holds something that stays.
func (x *scan) other() {
	if n := len(x.open); n > 0 {
		x.open[n-1].other = true
	}
}

// tag takes what begins with the '<' at x.at.
func (x *scan) tag() {
	rest := x.b[x.at:]
	switch {
	case bytes.HasPrefix(rest, []byte("<!--")):
		x.pass(4, "-->")
	case bytes.HasPrefix(rest, []byte("<![CDATA[")):
		x.other()
		x.pass(9, "]]>")
	case bytes.HasPrefix(rest, []byte("<?")):
		x.pass(2, "?>")
	case bytes.HasPrefix(rest, []byte("<!")):
		x.odd = true
	case bytes.HasPrefix(rest, []byte("</")):
		x.endTag()
	default:
		x.startTag()
	}
}

// pass goes past what begins with skip bytes and ends with end. There must be no
// location in it: some readers look into comments.
func (x *scan) pass(skip int, end string) {
	body := x.b[x.at+skip:]
	i := bytes.Index(body, []byte(end))
	if i < 0 || hasWords(body[:i]) {
		x.odd = true
		return
	}
	x.at += skip + i + len(end)
}

// name takes a name, which may be empty.
func (x *scan) name() []byte {
	from := x.at
	for x.at < len(x.b) && strings.IndexByte(" \t\r\n/>=<'\"\x00", x.b[x.at]) < 0 {
		x.at++
	}
	return x.b[from:x.at]
}

// blanks takes white space, and zeros where something was blanked before.
func (x *scan) blanks() {
	for x.at < len(x.b) && strings.IndexByte(" \t\r\n\x00", x.b[x.at]) >= 0 {
		x.at++
	}
}

// take takes one byte, which must be c, or the packet is odd.
func (x *scan) take(c byte) {
	if x.at >= len(x.b) || x.b[x.at] != c {
		x.odd = true
		return
	}
	x.at++
}

// endTag takes an end tag.
func (x *scan) endTag() {
	x.at += 2
	name := x.name()
	x.blanks()
	x.take('>')
	n := len(x.open)
	if x.odd || n == 0 || x.open[n-1].name != string(name) {
		x.odd = true
		return
	}
	e := x.open[n-1]
	x.open = x.open[:n-1]
	x.end(e)
}

// startTag takes a start tag, or that of an empty element.
func (x *scan) startTag() {
	e := element{from: x.at}
	x.at++
	e.name = string(x.name())
	x.odd = x.odd || e.name == "" || len(x.open) > 1000
	for !x.odd {
		x.blanks()
		if x.at < len(x.b) && x.b[x.at] == '/' {
			x.at++
			x.take('>')
			x.end(e)
			return
		}
		if x.at < len(x.b) && x.b[x.at] == '>' {
			x.at++
			x.shut = false
			x.open = append(x.open, e)
			return
		}
		x.attribute(&e)
	}
}

// attribute takes an attribute of e.
func (x *scan) attribute(e *element) {
	from := x.at
	name := x.name()
	x.blanks()
	x.take('=')
	x.blanks()
	if x.odd || len(name) == 0 || x.at >= len(x.b) || x.b[x.at] != '\'' && x.b[x.at] != '"' {
		x.odd = true
		return
	}
	value := x.b[x.at+1:]
	n := bytes.IndexByte(value, x.b[x.at])
	if n < 0 || bytes.ContainsAny(value[:n], "<\x00") {
		x.odd = true
		return
	}
	x.at += 1 + n + 1
	switch {
	case isLocation(name):
		x.gone = append(x.gone, span{from, x.at})
		e.lost = true
	case !isFrame(string(name)):
		e.other = true
	}
}

// isFrame reports whether an attribute is no property of its own.
func isFrame(name string) bool {
	switch name {
	case "rdf:about", "rdf:parseType", "xml:lang":
		return true
	}
	return len(name) > 5 && name[:5] == "xmlns"
}

// end ends an element. If it is a property that holds location, or held nothing
// else, it goes; an empty frame of one would be shown as a value.
func (x *scan) end(e element) {
	x.shut = true
	gone := isLocation([]byte(e.name))
	if gone || e.lost && !e.other && !isRoot(e.name) {
		x.gone = append(x.gone, span{e.from, x.at})
		gone = true
	}
	if n := len(x.open); n > 0 {
		x.open[n-1].lost = x.open[n-1].lost || gone
		x.open[n-1].other = x.open[n-1].other || !gone
	}
}

// isRoot reports whether an element is a frame of the whole packet.
func isRoot(name string) bool {
	switch name {
	case "rdf:RDF", "x:xmpmeta", "x:xapmeta", "xmp:xmpmeta":
		return true
	}
	return false
}
