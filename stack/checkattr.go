// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import (
	"bytes"
	"strings"

	"github.com/plyfs/plyfs/layers"
	"golang.org/x/sys/unix"
)

const maxXattr = 64 << 10 // XATTR_SIZE_MAX and XATTR_LIST_MAX

// readAttr reads an xattr of any size.
func readAttr(d *layers.Dir, name, attr string) ([]byte, error) {
	small := make([]byte, 512)
	n, err := d.Getxattr(name, attr, small)
	if err == unix.ERANGE {
		small = make([]byte, maxXattr)
		n, err = d.Getxattr(name, attr, small)
	}
	if err != nil {
		return nil, err
	}
	return small[:n], nil
}

// privateAttrs lists the private xattrs of an upper entry. Most have none.
func (c *checker) privateAttrs(d *layers.Dir, name string) ([]string, error) {
	var small [1024]byte
	buf := small[:]
	n, err := d.Listxattr(name, buf)
	if err == unix.ERANGE {
		buf = make([]byte, maxXattr)
		n, err = d.Listxattr(name, buf)
	}
	if err == unix.EOPNOTSUPP {
		return nil, nil
	}
	if err != nil || n == 0 {
		return nil, err
	}
	var list []string
	for _, attr := range bytes.Split(buf[:n], []byte{0}) {
		if strings.HasPrefix(string(attr), xattrPrefix) {
			list = append(list, string(attr))
		}
	}
	return list, nil
}

// checkAttr looks at a private xattr that can be on any inode.
func (c *checker) checkAttr(d *layers.Dir, name, path, attr string) {
	switch attr {
	case xattrPlace:
		c.checkPlace(d, name, path)
	case xattrCopied:
		b, err := readAttr(d, name, attr)
		if err != nil {
			c.unreadable(path, err)
		} else if !bytes.Equal(b, []byte{markVersion}) {
			c.add(Finding{Severity: Note, Kind: "attr-unknown", Path: path, What: attr + " has a value that this plyfs does not write: it counts all the same"})
		}
	default:
		c.add(Finding{Severity: Note, Kind: "attr-unknown", Path: path, What: attr + " is nothing that this plyfs writes here: it is not looked at",
			Mend: "remove it, unless a newer plyfs wrote it"})
	}
}

// checkPlace looks at the place by which a policy goes.
func (c *checker) checkPlace(d *layers.Dir, name, path string) {
	b, err := readAttr(d, name, xattrPlace)
	if err != nil {
		c.unreadable(path, err)
		return
	}
	p := string(b)
	if len(p) > maxPlace || p == "" || p != "/" && !isLowerPath(p) {
		c.add(Finding{Severity: Violation, Kind: "place", Path: path, What: xattrPlace + " holds no path: it is damaged",
			Loses: "what a policy says about it: the file or directory goes by a place that is none",
			Mend:  "setfattr -n " + xattrPlace + " -v PATH, the path that it had when it was renamed first"})
	}
}
