// Copyright 2026 The plyfs Authors.
// SPDX-License-Identifier: BSD-3-Clause

package stack

// Status is what `plyfs status` prints. Counters count since the mount.
type Status struct {
	Mountpoint    string            `json:"mountpoint"`
	PID           int               `json:"pid"`
	ReadOnly      bool              `json:"read_only"`
	IO            string            `json:"io"`
	MaxStackDepth int               `json:"max_stack_depth"`
	Volatile      bool              `json:"volatile,omitempty"`
	CapEffective  string            `json:"cap_effective"` // hexadecimal, as in /proc/PID/status
	CapSysRes     bool              `json:"cap_sys_resource"`
	UptimeSeconds float64           `json:"uptime_seconds"`
	Layers        []LayerStatus     `json:"layers"`
	Requests      map[string]uint64 `json:"requests"` // by opcode
	Errors        map[string]uint64 `json:"errors"`   // replies by errno name
	Panics        uint64            `json:"panics"`
	Opens         OpenStatus        `json:"opens"`
	CopyUps       CopyUpStatus      `json:"copy_ups"`
	Nodes         int               `json:"nodes"`
	DirFDs        int               `json:"dir_fds"`
	FDs           int               `json:"fds"`
	Threads       int               `json:"threads"`
	Partial       *PartialStatus    `json:"partial,omitempty"` // of a writable mount
	Journal       *JournalStatus    `json:"journal,omitempty"`
	Policy        *PolicyStatus     `json:"policy,omitempty"`
	LastErrors    []string          `json:"last_errors,omitempty"`
}

// LayerStatus describes one layer.
type LayerStatus struct {
	Role        string   `json:"role"` // "upper" or "lower"
	Path        string   `json:"path"`
	FSType      string   `json:"fs_type"`
	Depth       int      `json:"depth"`
	DepthWhy    string   `json:"depth_why,omitempty"`
	ReadOnly    bool     `json:"read_only_clone"`
	Passthrough bool     `json:"passthrough"`
	Why         string   `json:"why,omitempty"` // why not passed through
	Caps        []string `json:"capabilities,omitempty"`
	Attrs       string   `json:"attributes,omitempty"` // where the private xattrs are kept, if the file system has none
}

// OpenStatus counts opens of regular files by the way they are served.
type OpenStatus struct {
	Passthrough   uint64            `json:"passthrough"`
	Server        uint64            `json:"server"`
	Refusals      map[string]uint64 `json:"refusals,omitempty"` // reasons for not passing through
	Retired       uint64            `json:"retired"`            // nodes replaced because a copy-up overtook open lower handles
	PolicyRetired uint64            `json:"policy_retired"`     // nodes replaced because the policy decides otherwise than for live handles
	Overtaken     uint64            `json:"overtaken"`          // open lower handles that a copy-up overtook
	Stale         uint64            `json:"stale"`              // ESTALE answers that made the kernel look up again
}

// CopyUpStatus counts copy-ups.
type CopyUpStatus struct {
	Files  uint64            `json:"files"`
	Dirs   uint64            `json:"dirs"`
	Others uint64            `json:"others"`
	Bytes  uint64            `json:"bytes"`
	How    map[string]uint64 `json:"how,omitempty"` // clone, copy_file_range, read_write
	Failed uint64            `json:"failed"`
}

// PartialStatus is about files that are copied up in part, as far as the mount
// has met them.
type PartialStatus struct {
	CopyUp string `json:"copyup"`        // Config.CopyUp
	Why    string `json:"why,omitempty"` // why copies are always made whole here

	Files        int           `json:"files"`         // partial files with data in upper
	UpperBytes   int64         `json:"upper_bytes"`   // what they take there
	BytesLeft    int64         `json:"bytes_left"`    // about what is still to be copied
	MetadataOnly int           `json:"metadata_only"` // files without data in upper
	Unsynced     int           `json:"unsynced"`      // whole ones that were not synced yet
	Largest      []PartialFile `json:"largest,omitempty"`

	Rate           int64   `json:"rate"` // bytes a second copied in the background at most; 0: none
	Completed      uint64  `json:"completed"`
	CompletedBytes uint64  `json:"completed_bytes"`
	Current        string  `json:"current,omitempty"` // being completed
	CurrentPercent float64 `json:"current_percent,omitempty"`
	Waiting        string  `json:"waiting,omitempty"` // why the completion does not go on
}

// PartialFile is one partial file.
type PartialFile struct {
	Path       string `json:"path"`
	Size       int64  `json:"size"`
	UpperBytes int64  `json:"upper_bytes"`
	BytesLeft  int64  `json:"bytes_left"`
}

// JournalStatus sums up the journal.
type JournalStatus struct {
	Path     string            `json:"path"`
	Records  map[string]uint64 `json:"records"`
	DBBytes  int64             `json:"db_bytes"`
	LogBytes int64             `json:"log_bytes"`
	Dirty    bool              `json:"dirty"`
	Syncs    uint64            `json:"syncs"`
	Folds    uint64            `json:"folds"`
	Error    string            `json:"error,omitempty"`
}

// Explanation is what `plyfs explain` prints about one path of the mount.
type Explanation struct {
	Path     string   `json:"path"`
	Exists   bool     `json:"exists"`
	Type     string   `json:"type,omitempty"`
	Ino      uint64   `json:"ino,omitempty"`
	ServedBy string   `json:"served_by,omitempty"` // path in the layer that serves it
	Layer    string   `json:"layer,omitempty"`
	Merged   []string `json:"merged,omitempty"` // the directories that a merged directory is made of, topmost first
	Hidden   []string `json:"hidden,omitempty"` // entries of lower layers that it hides
	HiddenBy string   `json:"hidden_by,omitempty"`
	Place    string   `json:"place,omitempty"`   // by which the policy goes
	Rules    []string `json:"rules,omitempty"`   // of the policy that have a say about it
	Records  []string `json:"records,omitempty"` // journal records and private xattrs about it
	IOMode   string   `json:"io_mode,omitempty"`
	IOWhy    string   `json:"io_why,omitempty"`
	// DecidedBy is the rule of the policy that decided how the file is served.
	DecidedBy string `json:"decided_by,omitempty"`
}

// PolicyStatus is about the policy in force.
type PolicyStatus struct {
	Source       string       `json:"source,omitempty"` // file or object that it was made of
	Generation   uint64       `json:"generation"`       // 1 at the mount; each replacement counts
	Fail         string       `json:"fail,omitempty"`   // closed or open: what a program that was switched off comes to
	BudgetNS     int64        `json:"budget_ns,omitempty"`
	WrongAnswers uint64       `json:"wrong_answers"` // each was EIO
	Rules        []RuleStatus `json:"rules,omitempty"`
	LastErrors   []string     `json:"last_errors,omitempty"`
}

// RuleStatus is about one rule of the policy. What asking costs is told for
// each kind of question.
type RuleStatus struct {
	Name      string           `json:"name"`
	Path      string           `json:"path"`
	Program   string           `json:"program"`
	Caller    bool             `json:"by_caller,omitempty"`
	Off       string           `json:"switched_off,omitempty"` // why it is no longer asked
	Wrong     uint64           `json:"wrong_answers"`
	Questions []QuestionStatus `json:"questions,omitempty"`
}

// QuestionStatus counts how often one program of a rule was asked.
type QuestionStatus struct {
	Section string         `json:"section"`
	Runs    uint64         `json:"runs"`
	Errors  uint64         `json:"errors"`
	Slow    uint64         `json:"slow"`   // over the budget
	P50NS   int64          `json:"p50_ns"` // rounded up to a power of two, as P99NS
	P99NS   int64          `json:"p99_ns"`
	Latency []LatencyCount `json:"latency,omitempty"`
}

// LatencyCount is a bucket of a histogram that is not empty.
type LatencyCount struct {
	BelowNS uint64 `json:"below_ns"` // and at least half of it
	Runs    uint64 `json:"runs"`
}
