// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package journal

// A CutPoint is a place between two steps that write files of the journal. It
// is named after the step that has just been made. See stack.CutPoint.
type CutPoint string

const (
	cutLogMade        CutPoint = "journal: log made"
	cutLogsNamed      CutPoint = "journal: names of the logs durable"
	cutDBMade         CutPoint = "journal: database made"
	cutDBFilled       CutPoint = "journal: database filled"
	cutDBNamed        CutPoint = "journal: database has its name"
	cutDBDurable      CutPoint = "journal: name of the database durable"
	cutEpochBegun     CutPoint = "journal: epoch begun"
	cutLogEmptied     CutPoint = "journal: log of the last epoch emptied"
	cutFrame          CutPoint = "journal: frame written"
	cutLogSynced      CutPoint = "journal: log synced"
	cutFrozen         CutPoint = "journal: log frozen"
	cutFolded         CutPoint = "journal: log folded into the database"
	cutFrozenEmpty    CutPoint = "journal: frozen log emptied"
	cutLogCleared     CutPoint = "journal: log emptied before its removal"
	cutFileRemoved    CutPoint = "journal: file removed"
	cutWitnessRemoved CutPoint = "journal: witness removed"
)

// at is called between two steps.
func (o *Options) at(p CutPoint) {
	if o.CutPoint != nil {
		o.CutPoint(p)
	}
}
