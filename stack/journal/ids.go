// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

// idBlock is how many directory ids are reserved at a time.
const idBlock = 1 << 16

// NewDirID gives an id that no directory ever had. Ids are handed out only from a
// block whose reservation is durable, since the directory that carries the id may
// become durable before anything else of the journal does. Each fold renews the
// block on the way, so a sync just for this is rare.
func (j *Journal) NewDirID() (DirID, error) {
	for {
		id, err := j.takeID()
		if id != 0 || err != nil {
			return id, err
		}
		if err := j.reserveIDs(); err != nil {
			return 0, err
		}
	}
}

// takeID takes the next id of the block, or gives 0 if there is none left.
func (j *Journal) takeID() (DirID, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil {
		return 0, err
	}
	if j.nextID > j.reserved {
		return 0, nil
	}
	id := j.nextID
	j.nextID++
	return id, nil
}

// reserveIDs reserves a block by way of the log, durably.
func (j *Journal) reserveIDs() error {
	j.idMu.Lock()
	defer j.idMu.Unlock()
	j.mu.RLock()
	have, upTo := j.nextID <= j.reserved, j.reserved+idBlock
	j.mu.RUnlock()
	if have {
		return nil
	}
	if err := j.Apply(Op{kind: opReserve, dir: upTo}); err != nil {
		return err
	}
	if err := j.Sync(); err != nil {
		return err
	}
	j.raiseReserved(upTo)
	return nil
}

// raiseReserved notes that ids up to upTo are reserved durably.
func (j *Journal) raiseReserved(upTo DirID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.reserved = max(j.reserved, upTo)
}
