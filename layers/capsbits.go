// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package layers

// Bits are the capabilities as a number: bit i is that of capProbes[i]. It is
// kept on disk, so probes are added at the end only.
func (c *Caps) Bits() (bits uint16) {
	for i, p := range capProbes {
		if *p.cap(c) {
			bits |= 1 << i
		}
	}
	return bits
}

// CapsOf is the opposite of Bits.
func CapsOf(bits uint16) Caps {
	c := Caps{Why: map[string]string{}}
	for i, p := range capProbes {
		if *p.cap(&c) = bits>>i&1 == 1; !*p.cap(&c) {
			c.Why[p.name] = "an earlier mount found so; this one found no space to try"
		}
	}
	return c
}
