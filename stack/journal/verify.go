// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

// content is what a walk over the database found.
type content struct {
	state  state
	layers Meta
}

// verifyDB walks the database at path: its structure, each record, and the account
// of records. report, if not nil, gets each bad record and the walk goes on;
// otherwise the first one is the error.
func verifyDB(path string, report func(what string)) (content, error) {
	v := verifier{path: path, report: report, entered: make(map[string]bool)}
	if err := walkDB(path, func(b string) { v.entered[b] = true }, v.visit); err != nil {
		return content{}, err
	}
	if err := v.finish(); err != nil {
		return content{}, err
	}
	return v.found, nil
}

// verifier checks records as the walk shows them.
type verifier struct {
	path    string
	report  func(what string)
	entered map[string]bool
	tallies [bucketKinds]tally
	state   bool
	layers  bool
	found   content
}

// bad reports or returns a damage.
func (v *verifier) bad(format string, args ...any) error {
	err := damaged(v.path, format, args...)
	if v.report == nil {
		return err
	}
	v.report(err.What)
	return nil
}

func (v *verifier) visit(bucket string, key, value []byte) error {
	if bucket == metaBucket {
		return v.visitMeta(key, value)
	}
	for kind, name := range bucketNames {
		if name != bucket {
			continue
		}
		if len(value) < crcSize {
			return v.bad("a record of bucket %s is cut short (key %x)", bucket, key)
		}
		v.tallies[kind].add(value)
		if _, ok := decodeRecord(bucketKind(kind), key, value); !ok {
			return v.bad("a record of bucket %s is bad (key %x)", bucket, key)
		}
		return nil
	}
	return v.bad("bucket %q is not ours", bucket)
}

func (v *verifier) visitMeta(key, value []byte) error {
	payload, ok := unseal(metaBucket, key, value)
	if !ok {
		return v.bad("its %q is bad", key)
	}
	var err error
	switch string(key) {
	case stateKey:
		v.state = true
		v.found.state, err = decodeState(v.path, payload)
	case layersKey:
		v.layers = true
		v.found.layers, err = decodeLayers(v.path, payload)
	default:
		err = v.bad("its %q is not known", key)
	}
	return err
}

// finish compares the account with what was seen.
func (v *verifier) finish() error {
	if !v.state || !v.layers {
		return v.bad("its state or its list of layers is missing")
	}
	for kind, name := range bucketNames {
		if !v.entered[name] {
			if err := v.bad("bucket %s is missing", name); err != nil {
				return err
			}
		}
		if want, got := v.found.state.tallies[kind], v.tallies[kind]; want != got {
			if err := v.bad("bucket %s has %d records, not the %d that were written", name, got.records, want.records); err != nil {
				return err
			}
		}
	}
	return nil
}
