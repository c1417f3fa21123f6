// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import "fmt"

// kernelMaxDepth is FILESYSTEM_MAX_STACK_DEPTH: no file system may be stacked
// more than two levels deep.
const kernelMaxDepth = 2

// chooseDepth settles max_stack_depth and which layers can be passed through.
// The kernel takes a backing file only of a file system whose own depth is
// below max_stack_depth, and the mount's depth is then max_stack_depth itself:
// with 1 an overlay may still be stacked on plyfs, but nothing stacked may be
// below; with 2 one level may be below, and nothing may be stacked on top.
// Chosen is 1, unless a layer needs 2.
func (fs *FS) chooseDepth() error {
	fs.noPassthrough = make([]string, len(fs.layers))
	fs.maxStackDepth = fs.cfg.MaxStackDepth
	if fs.maxStackDepth == 0 {
		fs.maxStackDepth = 1
		for _, l := range fs.layers {
			if l != nil && l.Depth == 1 {
				fs.maxStackDepth = 2
			}
		}
	}
	for i, l := range fs.layers {
		if l == nil {
			continue
		}
		if fs.cfg.Passthrough == PassthroughOff {
			fs.noPassthrough[i] = "passthrough=off"
			continue
		}
		if l.Depth < fs.maxStackDepth {
			continue
		}
		why := fmt.Sprintf("the layer is %s, stacked %d deep; max_stack_depth=%d takes less than %d",
			l.DepthWhy, l.Depth, fs.maxStackDepth, fs.maxStackDepth)
		if fs.cfg.Passthrough == PassthroughRequire {
			return &Error{Kind: KindUsage, Path: l.Path, Msg: "cannot be passed through: " + why, Mend: depthMend(l.Depth)}
		}
		fs.noPassthrough[i] = why
		fs.log.Warn("layer is served without passthrough", "layer", l.Path, "why", why)
	}
	return nil
}

func depthMend(depth int) string {
	if depth >= kernelMaxDepth {
		return "use a layer that is stacked less deep, or passthrough=auto to have it served by the daemon"
	}
	return "use max_stack_depth=2, or passthrough=auto to have it served by the daemon"
}
