// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

import "github.com/plyfs/plyfs/stack/journal"

// A CutPoint is a place between two steps of an operation, a step being a
// system call that changes upper or work, or a call of the journal that writes.
// The mount can be killed, or lose its power, at each of them, and the next
// mount must show the operation done or not done. cutpoint_test.go stops at
// every one.
//
// A point is named after the step that has just been made, and stands right
// after it. To add one: declare a constant here, call fs.at with it after the
// step, and, if no operation of cutcases_test.go comes by, add one that does;
// the tests fail for a point that is declared and not used, used and not
// declared, or never reached. The steps within the journal have points of the
// same kind there (journal.CutPoint).
type CutPoint string

// Copy-up.
const (
	cutTmpMade         CutPoint = "copy-up: entry made in work"
	cutDataCopied      CutPoint = "copy-up: data copied, not synced"
	cutBodyDone        CutPoint = "copy-up: body complete"
	cutMetaXattrs      CutPoint = "copy-up: xattrs set"
	cutMetaOwner       CutPoint = "copy-up: owner set"
	cutMetaMode        CutPoint = "copy-up: mode set"
	cutMetaCapability  CutPoint = "copy-up: capability set"
	cutMetaDone        CutPoint = "copy-up: times set"
	cutCopiedMark      CutPoint = "copy-up: marked as copied through a plan"
	cutCopyComplete    CutPoint = "copy-up: origin set"
	cutPublished       CutPoint = "copy-up: published"
	cutDirParentTimes  CutPoint = "copy-up: directory published, parent's times set"
	cutFileParentTimes CutPoint = "copy-up: file published, parent's times set"
	cutOrphanOpen      CutPoint = "copy-up: copy without a name opened"
	cutOrphanDirOpen   CutPoint = "copy-up: copy of a removed directory opened"
)

// Partial files.
const (
	cutSomeCopied     CutPoint = "partial: size set, or data copied"
	cutPartialMarked  CutPoint = "partial: work directory marked"
	cutMayBeCut       CutPoint = "partial: marked as one that may be cut"
	cutEdgeFilled     CutPoint = "partial: last block filled"
	cutResized        CutPoint = "partial: size set by the user"
	cutLimitLowered   CutPoint = "partial: limit lowered"
	cutBlankedBlocks  CutPoint = "partial: zeros written in place of a hole"
	cutPinned         CutPoint = "partial: path of the lower file written"
	cutChunkFilled    CutPoint = "partial: chunk of the lower file brought to upper"
	cutChunkTimes     CutPoint = "partial: times set back after a chunk"
	cutCompleteSynced CutPoint = "partial: complete and synced"
	cutWhole          CutPoint = "partial: mark taken away"
)

// The index of hard-linked lower files.
const (
	cutAccountWritten  CutPoint = "index: account written"
	cutIndexPublished  CutPoint = "index: copy published in the index"
	cutIndexLinked     CutPoint = "index: copy linked in work"
	cutNameLinked      CutPoint = "index: name linked in upper"
	cutHardMarked      CutPoint = "index: directory durable before a lower name is counted"
	cutUncountedMarked CutPoint = "index: marked that a replaced name may go uncounted"
	cutHiddenSynced    CutPoint = "index: upper synced before a hidden name is counted"
	cutHiddenCounted   CutPoint = "index: hidden name counted"
	cutIndexReaped     CutPoint = "index: copy without a name removed"
	cutIndexReapedAt   CutPoint = "index: copy without a name removed at mount"
)

// Directory ids, marks, covers and places.
const (
	cutDirIDTaken   CutPoint = "directory: id taken"
	cutDirMarked    CutPoint = "directory: mark written"
	cutDirNoted     CutPoint = "directory: mark noted in the journal"
	cutCovered      CutPoint = "directory: name covered"
	cutTouched      CutPoint = "directory: times set before a name is covered"
	cutPlaceWritten CutPoint = "place: written"
)

// Unlink and rmdir.
const (
	cutWhiteoutMade   CutPoint = "unlink: whiteout made in work"
	cutWhitedOut      CutPoint = "unlink: whiteout in the name's place"
	cutMovedAway      CutPoint = "rmdir: directory moved to work"
	cutDiscardEmptied CutPoint = "rmdir: whiteouts of the directory removed in work"
	cutDiscarded      CutPoint = "rmdir: directory removed in work"
	cutRemoved        CutPoint = "unlink: name gone"
)

// Uppers that hold no whiteouts.
const (
	cutDurableSynced  CutPoint = "cover durably: upper synced"
	cutDurableCovered CutPoint = "cover durably: name covered"
	cutDurable        CutPoint = "cover durably: journal synced"
)

// Settling.
const (
	cutSettleSynced  CutPoint = "settle: upper synced"
	cutSettlePaid    CutPoint = "settle: record applied"
	cutSettleDurable CutPoint = "settle: journal synced"
	cutSettleRemoved CutPoint = "settle: whiteout removed"
	cutSettleTimes   CutPoint = "settle: directory's times set"
	cutSyncSettled   CutPoint = "sync: settled"
	cutSynced        CutPoint = "sync: upper synced"
)

// Rename.
const (
	cutSweepSynced   CutPoint = "rename: upper synced before whiteouts are swept"
	cutSweepCovered  CutPoint = "rename: name of a swept whiteout covered"
	cutSweepDurable  CutPoint = "rename: journal synced before whiteouts are swept"
	cutSweepRemoved  CutPoint = "rename: whiteout swept"
	cutMoveMarked    CutPoint = "rename: facts written on the inodes"
	cutMoved         CutPoint = "rename: moved"
	cutMoveUnwhited  CutPoint = "rename: whiteout that hides nothing removed"
	cutMoveCompleted CutPoint = "rename: records written or owed"
)

// Create, mkdir, mknod, symlink, link.
const (
	cutCradleMade     CutPoint = "create: cradle made"
	cutCradleACL      CutPoint = "create: cradle has the default ACL"
	cutCradleGroup    CutPoint = "create: cradle has the group"
	cutCradleDressed  CutPoint = "create: cradle has the mode"
	cutMadeInWork     CutPoint = "create: entry made in work"
	cutMadeOpaque     CutPoint = "create: directory in work marked opaque"
	cutMadeExchanged  CutPoint = "create: directory exchanged with a whiteout"
	cutMadePublished  CutPoint = "create: published from work"
	cutMade           CutPoint = "create: entry there"
	cutLinkMadeInWork CutPoint = "link: made in work"
	cutLinked         CutPoint = "link: name there"
)

// Set-up and unmount.
const (
	cutWorkMade       CutPoint = "set-up: directory made in work"
	cutWorkOwned      CutPoint = "set-up: directory in work has its mode"
	cutJournalOpen    CutPoint = "set-up: journal open"
	cutPaired         CutPoint = "set-up: pair mark written"
	cutTmpUnlinked    CutPoint = "set-up: leftover unlinked"
	cutTmpRemoved     CutPoint = "set-up: leftover directory removed"
	cutSharedWhiteout CutPoint = "set-up: shared whiteout made"
	cutLiveMarked     CutPoint = "set-up: marked as live"
	cutRecounted      CutPoint = "set-up: name counted again"
	cutOpen           CutPoint = "set-up: done"
	cutCloseSettled   CutPoint = "unmount: settled"
	cutLiveRemoved    CutPoint = "unmount: live mark removed"
	cutJournalClosed  CutPoint = "unmount: journal closed"
	cutUnmadeWhiteout CutPoint = "unmake: shared whiteout removed"
	cutUnmadePair     CutPoint = "unmake: pair mark removed"
	cutUnmadeLive     CutPoint = "unmake: live mark removed"
	cutUnmadeDir      CutPoint = "unmake: directory removed"
)

// at is called between two steps.
func (fs *FS) at(p CutPoint) {
	if fs.cfg.cutPoint != nil {
		fs.cfg.cutPoint(p)
	}
}

// journalAt passes the journal's points on.
func (fs *FS) journalAt() func(journal.CutPoint) {
	if fs.cfg.cutPoint == nil {
		return nil
	}
	return func(p journal.CutPoint) { fs.cfg.cutPoint(CutPoint(p)) }
}
