// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

// Package journal remembers what a writable mount has to know about names and
// cannot keep on an inode.
//
// # The model
//
// A union mount has an optional upper layer over lower layers. Facts about an
// inode (its directory id, opaque, redirect, origin) live on the inode in
// extended attributes. Facts about names live here, because a name that is gone
// has no inode to carry them. There are three kinds of record:
//
//   - cover (directory id, name): the lower entries of this name are hidden.
//     With no upper entry of the name it is a whiteout, with an upper directory
//     it makes that directory opaque, with any other upper entry it says nothing
//     more.
//   - links (origin): the account of a lower inode with several hard links.
//   - note (directory id): what readers of a dump want to know of a directory.
//     The truth about it is the extended attribute on the directory.
//
// Directory ids are handed out by the journal and never used twice.
//
// # Two files in front of a database
//
// Records rest in journal.db, a bbolt database. A change does not go there: an
// unsynced bbolt commit costs 30 to 47 µs and a synced one a millisecond. It is
// appended as one frame to a log with one write(2), a few µs, and is then in the
// page cache, where it survives the death of the process. [Journal.Sync] makes it
// survive a power cut with one fdatasync for all concurrent callers. A background
// folder moves the records of thousands of frames into the database with one
// synced transaction.
//
// There are two log files, journal.log and journal.alt. At any time one is active
// (frames are appended to it) and the other is frozen or empty. To fold is:
//
//  1. freeze the active log: the other one, which is empty, becomes active;
//  2. commit the frozen records and the last frozen sequence number S to the
//     database, in one synced transaction;
//  3. wipe the frozen log: zeros, made durable, for its blocks are kept (reserve.go);
//  4. append to the active log a mark: a frame without records that says
//     "everything up to S is durable".
//
// Frames are numbered without gaps over both files. To open is to read the
// database's S, to apply the frames S+1, S+2, ... of both logs in memory, to fold
// them, and to empty both logs. Whatever step was cut:
//
//   - cut before 2 is done: the database says the old S, both logs hold all frames
//     after it, in order of their numbers;
//   - cut before 3 is done: frames up to S are in the logs and are skipped;
//   - a torn or missing frame that no later frame says was durable is the end of
//     the log: it and what follows was never synced, and is not done;
//   - a torn or missing frame that a later frame says was durable is damage, and
//     so is a bad frame before a good one that does not look like a page that
//     never reached the disk (see scan.go). Damage is refused with [ErrDamaged]:
//     to lose a cover would bring removed content back.
//
// Each opening is an epoch: a counter and random bits, committed to the database
// before the first frame and repeated in each frame. Frames of an earlier epoch
// are leftovers, a frame of a later one proves that the database is older than its
// log (restored from a copy, or its newest commit is damaged).
//
// # Damage
//
// bbolt trusts its file: a flipped bit makes it panic or loop, some of it in
// goroutines of its own where nobody can recover. So the file's structure is walked
// before bbolt sees it (walk.go), each record carries a CRC, and the number of
// records and the sum of their CRCs are kept and compared. bbolt is then called
// only inside a guard that turns a panic or a fault into [ErrDamaged].
//
// Each sync is followed by a mark that says what it made durable. What cannot be told
// from a crash is a frame damaged at the very end of the log after a power cut that
// took the mark: nothing behind it says that it was durable, so it counts as torn.
//
// # Locks
//
// In this order: Journal.foldMu (one fold at a time) or Journal.idMu (one reservation
// of ids), Journal.syncMu (one fdatasync at a time), Journal.mu (the memory state).
// Journal.mu is never held over an fsync or a commit; LoadDir takes only Journal.mu for
// reading and bbolt's read transaction.
package journal
